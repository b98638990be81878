//! Settings of the simulated machine, from the environment.

use std::env::var;

/// Settings of the simulated machine. The README lists the variables.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `CUDASIM_DEVICES`: number of devices.
    pub devices: usize,
    /// `CUDASIM_CC`: compute capability, such as 80.
    pub compute_capability: u32,
    /// `CUDASIM_MEMORY_MB`: memory of each device, in bytes here.
    pub memory: usize,
    /// `CUDASIM_MULTIPROCESSORS`: number of multiprocessors that the device reports.
    pub multiprocessors: u32,
    /// `CUDASIM_DELAY_SEED`: 0 delays all work until something waits for it; another seed mixes streams at random.
    pub delay_seed: u64,
    /// `CUDASIM_EAGER`: runs all work at once, in the call that enqueues it.
    pub eager: bool,
    /// `CUDASIM_CHECKS`: `all`, `none`, or a list of `uninitialised` and `races`.
    pub check_uninitialised: bool,
    /// See [`Self::check_uninitialised`].
    pub check_races: bool,
    /// `CUDASIM_MAX_INSTRUCTIONS`: bound on the warp instructions of one launch.
    pub max_instructions: u64,
    /// `CUDASIM_TRACE`: prints every call and launch.
    pub trace: bool,
    /// `CUDASIM_FAIL_ALLOCATION`: number of the allocation that fails, counted from one.
    pub fail_allocation: Option<u64>,
    /// `CUDASIM_LOSE_DEVICE_AFTER`: number of launches after which the device is lost.
    pub lose_device_after: Option<u64>,
}

impl Settings {
    /// Reads the environment.
    pub fn from_env() -> Self {
        let checks = var("CUDASIM_CHECKS").unwrap_or_else(|_| "all".to_owned());
        let checks_for = |name: &str| checks == "all" || checks.split(',').any(|check| check.trim() == name);
        Self {
            devices: number("CUDASIM_DEVICES").unwrap_or(1) as usize,
            compute_capability: number("CUDASIM_CC").unwrap_or(80) as u32,
            memory: (number("CUDASIM_MEMORY_MB").unwrap_or(4096) as usize) << 20,
            multiprocessors: number("CUDASIM_MULTIPROCESSORS").unwrap_or(8) as u32,
            delay_seed: number("CUDASIM_DELAY_SEED").unwrap_or(1),
            eager: number("CUDASIM_EAGER").is_some_and(|value| value != 0),
            check_uninitialised: checks_for("uninitialised"),
            check_races: checks_for("races"),
            max_instructions: number("CUDASIM_MAX_INSTRUCTIONS").unwrap_or(4_000_000_000),
            trace: number("CUDASIM_TRACE").is_some_and(|value| value != 0),
            fail_allocation: number("CUDASIM_FAIL_ALLOCATION"),
            lose_device_after: number("CUDASIM_LOSE_DEVICE_AFTER"),
        }
    }
}

/// A variable as a number. Any other value stops the process: a test with a misspelt setting proves nothing.
fn number(name: &str) -> Option<u64> {
    let text = var(name).ok()?;
    let value = text.trim().parse().ok();
    if value.is_none() {
        eprintln!("[cudasim] {name}={text} is not a number; unset it or give a whole number");
        std::process::exit(2);
    }
    value
}
