//! This process: its memory, and Ctrl-C.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use siskin::CancelHandle;

/// The user pressed Ctrl-C.
#[derive(Debug)]
pub struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

static CURRENT: Mutex<Option<CancelHandle>> = Mutex::new(None);
static PRESSED: AtomicBool = AtomicBool::new(false);

/// Makes Ctrl-C cancel what `handle`'s session computes.
pub fn cancel_on_interrupt(handle: CancelHandle) -> anyhow::Result<()> {
    let mut current = CURRENT.lock().unwrap_or_else(|e| e.into_inner());
    let first = current.replace(handle).is_none();
    drop(current);
    if first {
        ctrlc::set_handler(|| {
            // A second time: the computation does not react; leave at once.
            if PRESSED.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
            if let Ok(current) = CURRENT.lock()
                && let Some(handle) = current.as_ref()
            {
                handle.cancel();
            }
        })?;
    }
    Ok(())
}

/// True if Ctrl-C was pressed since the last call.
pub fn was_interrupted() -> bool {
    PRESSED.swap(false, Ordering::Relaxed)
}

/// The most memory this process has had resident, in bytes, where the system tells.
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}
