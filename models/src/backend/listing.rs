//! A kind of device in words and figures, for `sconce devices` and reports.

use sconce_kernels::device::DeviceError;
use serde_json::{Map, Value};

use super::Capability;
use crate::DeviceName;

/// The devices of one kind, described for people and for programs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeviceListing {
    /// The devices, whether they can be used or not.
    pub devices: Vec<ListedDevice>,
    /// Lines below the table of devices: a driver's version, devices that cannot be used and why, or why there are none.
    pub remarks: Vec<String>,
    /// The reason for which there are no devices of the kind, for programs.
    pub error: Option<String>,
}

/// One device of a [`DeviceListing`].
#[derive(Debug, Clone, PartialEq)]
pub struct ListedDevice {
    /// The name by which Sconce knows the device.
    pub device: DeviceName,
    /// The name that its maker gave it, or a description.
    pub name: String,
    /// Its architecture or instruction set; may be empty.
    pub architecture: String,
    /// Bytes of memory of its own; `None` if it has none.
    pub memory: Option<u64>,
    /// Bytes of free memory; `None` if they are not known.
    pub free_memory: Option<u64>,
    /// Facts about it by name, for programs.
    pub facts: Map<String, Value>,
}

impl DeviceListing {
    /// A listing without devices: `heading` says that there are none, and `reason` why.
    pub(super) fn none(heading: &str, reason: &DeviceError) -> Self {
        Self { devices: Vec::new(), remarks: vec![format!("{heading}: {reason}")], error: Some(reason.to_string()) }
    }
}

impl From<Capability> for ListedDevice {
    /// Lists a device by its description and by the memory that models may take.
    fn from(capability: Capability) -> Self {
        let Capability { device, description, memory, .. } = capability;
        let mut facts = Map::from_iter([("name".to_owned(), Value::from(description.as_str()))]);
        facts.extend(memory.map(|memory| ("memory".to_owned(), Value::from(memory))));
        Self { device, name: description, architecture: String::new(), memory, free_memory: None, facts }
    }
}
