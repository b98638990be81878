//! `sconce devices`: the devices that models can run on, and why others cannot be used.

use std::io::{self, Write};
use std::process::ExitCode;

use sconce::models::{CudaDevice, Isa, Team, Version, cuda_devices, cuda_driver};
use sconce::{DeviceError, DeviceName};
use serde_json::{Value, json};

use crate::args::DevicesArgs;
use crate::error::Error;
use crate::table;

const HEADER: [&str; 5] = ["DEVICE", "NAME", "ARCHITECTURE", "MEMORY", "FREE"];

/// The driver's version and its devices, or why there is none.
type Gpus = Result<(Version, Vec<CudaDevice>), DeviceError>;

pub(crate) fn run(args: &DevicesArgs) -> Result<ExitCode, Error> {
    let gpus = cuda_devices().and_then(|devices| Ok((cuda_driver()?, devices)));
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", cpu_object())?;
        for object in gpu_objects(&gpus) {
            writeln!(out, "{object}")?;
        }
    } else {
        write_table(&mut out, &gpus)?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn write_table(out: &mut impl Write, gpus: &Gpus) -> io::Result<()> {
    let mut rows = vec![HEADER.map(str::to_owned), cpu_row()];
    let devices = gpus.as_ref().map_or(&[][..], |(_, devices)| devices);
    rows.extend(devices.iter().map(gpu_row));
    table::write(out, &rows)?;
    match gpus {
        Ok((driver, devices)) => {
            writeln!(out, "\nCUDA driver {driver}")?;
            for device in devices {
                if let Err(error) = device.check(*driver) {
                    writeln!(out, "NOT USABLE: {error}")?;
                } else if let Err(error) = device.check_for_candle() {
                    writeln!(out, "BERT MODELS ONLY: for others, {error}")?;
                }
            }
            Ok(())
        }
        Err(none) => writeln!(out, "\nno GPU: {none}"),
    }
}

fn cpu_row() -> [String; 5] {
    let (cores, threads) = cores_and_threads();
    let name = format!("{cores} cores, {threads} threads a batch");
    [DeviceName::CPU.to_string(), name, Isa::best().name().to_owned(), String::new(), String::new()]
}

fn gpu_row(device: &CudaDevice) -> [String; 5] {
    [
        name(device).to_string(),
        device.name.clone(),
        format!("compute capability {}", device.compute_capability),
        gibibytes(device.total_memory),
        device.free_memory.map_or_else(|| "not known".to_owned(), gibibytes),
    ]
}

fn cpu_object() -> Value {
    let (cores, threads) = cores_and_threads();
    let instruction_set = Isa::best().name();
    json!({"device": DeviceName::CPU.to_string(), "cores": cores, "threads": threads, "instruction_set": instruction_set})
}

fn gpu_objects(gpus: &Gpus) -> Vec<Value> {
    match gpus {
        Ok((driver, devices)) => devices.iter().map(|device| gpu_object(*driver, device)).collect(),
        Err(none) => vec![json!({"device": "cuda", "error": none.to_string()})],
    }
}

fn gpu_object(driver: Version, device: &CudaDevice) -> Value {
    let mut object = json!({
        "device": name(device).to_string(),
        "name": device.name,
        "compute_capability": device.compute_capability.to_string(),
        "total_memory": device.total_memory,
        "free_memory": device.free_memory,
        "driver": driver.to_string(),
    });
    if let Err(error) = device.check(driver) {
        object["error"] = json!(error.to_string());
    }
    object
}

fn name(device: &CudaDevice) -> DeviceName {
    DeviceName::cuda(device.ordinal)
}

/// Cores that the process may use, and threads that compute one batch by default.
fn cores_and_threads() -> (usize, usize) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores, Team::default().threads().get())
}

fn gibibytes(bytes: usize) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(gpus: &Gpus) -> String {
        let mut out = Vec::new();
        write_table(&mut out, gpus).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn device(ordinal: usize, major: u32, free_memory: Option<usize>) -> CudaDevice {
        let compute_capability = Version { major, minor: 0 };
        CudaDevice {
            ordinal,
            name: "NVIDIA Test".to_owned(),
            compute_capability,
            total_memory: 3 << 29,
            free_memory,
            multiprocessors: 108,
            clock_khz: 1_410_000,
            memory_clock_khz: 1_215_000,
            memory_bus_bits: 5120,
        }
    }

    #[test]
    fn the_cpu_is_always_listed_and_a_line_says_why_no_gpu_is() {
        let listed = table(&Err(DeviceError::NoDevice));
        let lines: Vec<&str> = listed.lines().collect();
        assert!(lines[0].starts_with("DEVICE  NAME"), "{listed}");
        assert!(lines[1].starts_with("cpu     "), "{listed}");
        assert_eq!(
            lines[2..],
            ["", "no GPU: the CUDA driver finds no device; see `nvidia-smi` and CUDA_VISIBLE_DEVICES"]
        );
        let objects = gpu_objects(&Err(DeviceError::NotBuilt));
        assert_eq!(objects, [json!({"device": "cuda", "error": DeviceError::NotBuilt.to_string()})]);
    }

    #[test]
    fn a_gpu_is_listed_with_its_memory_and_one_that_cannot_be_used_with_the_reason() {
        let driver = Version { major: 13, minor: 0 };
        let gpus = Ok((driver, vec![device(0, 9, Some(1 << 30)), device(1, 6, None)]));
        let listed = table(&gpus);
        for part in [
            "cuda:0  NVIDIA Test",
            "compute capability 9.0",
            "1.5 GiB  1.0 GiB",
            "1.5 GiB  not known",
            "CUDA driver 13.0",
        ] {
            assert!(listed.contains(part), "{listed}");
        }
        assert!(
            listed.ends_with("NOT USABLE: cuda:1 (NVIDIA Test) has compute capability 6.0; 7.5 or higher is needed\n")
        );
        let objects = gpu_objects(&gpus);
        assert_eq!((&objects[0]["device"], &objects[0]["free_memory"]), (&json!("cuda:0"), &json!(1_u64 << 30)));
        assert_eq!((&objects[0]["error"], &objects[1]["free_memory"]), (&Value::Null, &Value::Null));
        assert!(objects[1]["error"].as_str().unwrap().contains("compute capability 6.0"), "{}", objects[1]);
    }
}
