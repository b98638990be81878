//! `sconce devices`: the devices that models can run on, and why others cannot be used.

use std::io::{self, Write};
use std::process::ExitCode;

use sconce::models::{Backend, Backends, DeviceListing, ListedDevice};
use serde_json::{Value, json};

use crate::args::DevicesArgs;
use crate::error::Error;
use crate::table;

const HEADER: [&str; 5] = ["DEVICE", "NAME", "ARCHITECTURE", "MEMORY", "FREE"];

pub(crate) fn run(args: &DevicesArgs) -> Result<ExitCode, Error> {
    let mut out = io::stdout().lock();
    write_all(&mut out, &Backends::default(), args.json)?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the devices of all backends, as lines of JSON or as a table.
fn write_all(out: &mut impl Write, backends: &Backends, as_json: bool) -> io::Result<()> {
    if as_json {
        let mut objects = backends.iter().flat_map(|backend| objects(&**backend));
        objects.try_for_each(|object| writeln!(out, "{object}"))
    } else {
        let listings: Vec<DeviceListing> = backends.iter().map(|backend| backend.listing()).collect();
        write_table(out, &listings)
    }
}

fn write_table(out: &mut impl Write, listings: &[DeviceListing]) -> io::Result<()> {
    let rows = listings.iter().flat_map(|listing| &listing.devices).map(row);
    table::write(out, &std::iter::once(HEADER.map(str::to_owned)).chain(rows).collect::<Vec<_>>())?;
    let remarks: Vec<&String> = listings.iter().flat_map(|listing| &listing.remarks).collect();
    if !remarks.is_empty() {
        writeln!(out)?;
    }
    remarks.into_iter().try_for_each(|remark| writeln!(out, "{remark}"))
}

fn row(listed: &ListedDevice) -> [String; 5] {
    let ListedDevice { device, name, architecture, memory, free_memory, .. } = listed;
    let free = match (memory, free_memory) {
        (_, Some(free)) => gibibytes(*free),
        (Some(_), None) => "not known".to_owned(),
        (None, None) => String::new(),
    };
    [device.to_string(), name.clone(), architecture.clone(), memory.map(gibibytes).unwrap_or_default(), free]
}

/// An object for each device of a backend, or one that says why there is none.
fn objects(backend: &dyn Backend) -> Vec<Value> {
    let DeviceListing { devices, error, .. } = backend.listing();
    let none = error.map(|error| json!({"device": backend.kind(), "error": error}));
    devices.iter().map(object).chain(none).collect()
}

fn object(listed: &ListedDevice) -> Value {
    let mut object = json!({"device": listed.device.to_string()});
    for (key, fact) in &listed.facts {
        object[key] = fact.clone();
    }
    object
}

fn gibibytes(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sconce::DeviceError;
    use sconce::DeviceName;
    use sconce::models::{Capability, Device};

    use super::*;

    /// A kind of device that only these tests know.
    #[derive(Debug)]
    struct TestBackend(Result<Vec<Capability>, DeviceError>);

    impl Backend for TestBackend {
        fn kind(&self) -> &'static str {
            "test"
        }

        fn list(&self) -> Result<Vec<Capability>, DeviceError> {
            self.0.clone()
        }

        fn open(&self, _: usize) -> Result<Arc<dyn Device>, DeviceError> {
            Err(DeviceError::NoDevice)
        }
    }

    fn written(backend: TestBackend, as_json: bool) -> String {
        let mut backends = Backends::default();
        backends.add(Arc::new(backend));
        let mut out = Vec::new();
        write_all(&mut out, &backends, as_json).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_devices_of_any_backend_are_listed() {
        let capability = Capability {
            device: DeviceName::new("test", 3),
            description: "a device of this test".to_owned(),
            flops: 1e9,
            speeds: Vec::new(),
            bandwidth: 1e9,
            fixed: 1e-3,
            memory: Some(3 << 29),
        };
        let listed = written(TestBackend(Ok(vec![capability.clone()])), false);
        let lines: Vec<&str> = listed.lines().collect();
        assert!(lines[0].starts_with("DEVICE  NAME") && lines[1].starts_with("cpu "), "{listed}");
        let line = lines.iter().find(|line| line.starts_with("test:3")).unwrap();
        assert!(line.contains("a device of this test") && line.ends_with("1.5 GiB  not known"), "{line}");
        let objects = written(TestBackend(Ok(vec![capability])), true);
        let last: Value = serde_json::from_str(objects.lines().last().unwrap()).unwrap();
        assert_eq!(last, json!({"device": "test:3", "name": "a device of this test", "memory": 3 << 29}));
    }

    #[test]
    fn a_backend_without_devices_says_why() {
        let listed = written(TestBackend(Err(DeviceError::NotBuilt)), false);
        let reason = DeviceError::NotBuilt.to_string();
        assert!(listed.ends_with(&format!("no device of the kind test: {reason}\n")), "{listed}");
        let objects = written(TestBackend(Err(DeviceError::NotBuilt)), true);
        let last: Value = serde_json::from_str(objects.lines().last().unwrap()).unwrap();
        assert_eq!(last, json!({"device": "test", "error": reason}));
    }
}
