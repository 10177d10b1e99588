//! This process: its memory, and Ctrl-C.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once};

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
/// Something would be left behind if the process ended at once.
static UNINTERRUPTED: AtomicBool = AtomicBool::new(false);

fn set_current(handle: Option<CancelHandle>) {
    *CURRENT.lock().unwrap_or_else(|e| e.into_inner()) = handle;
}

/// While it lives, Ctrl-C cancels what a session computes.
pub struct Interruptible(());

impl Interruptible {
    /// For the session of `handle`.
    pub fn new(handle: CancelHandle) -> anyhow::Result<Interruptible> {
        handle_interrupts()?;
        forget_pressed();
        // Nor may one that came as the last answer ended stop this one.
        handle.clear();
        set_current(Some(handle.clone()));
        if interrupted() {
            handle.cancel();
        }
        Ok(Interruptible(()))
    }
}

impl Drop for Interruptible {
    fn drop(&mut self) {
        // Pressed later, it must not stop the next answer.
        set_current(None);
        forget_pressed();
    }
}

/// Forgets that Ctrl-C was pressed, unless it is to end a work of which this is a part.
fn forget_pressed() {
    if !UNINTERRUPTED.load(Ordering::Relaxed) {
        PRESSED.store(false, Ordering::Relaxed);
    }
}

/// From now on Ctrl-C does not end the program, unless it is pressed twice and nothing reacts.
///
/// Who else handles the signal, as a line editor does, must do so before this is called first: the
/// last handler counts.
pub fn handle_interrupts() -> anyhow::Result<()> {
    static ONCE: Once = Once::new();
    let mut result = Ok(());
    ONCE.call_once(|| {
        result = ctrlc::set_handler(|| {
            // A second time: the computation does not react; leave at once.
            let again = PRESSED.swap(true, Ordering::Relaxed);
            if again && !UNINTERRUPTED.load(Ordering::Relaxed) {
                std::process::exit(130);
            }
            if let Ok(current) = CURRENT.lock()
                && let Some(handle) = current.as_ref()
            {
                handle.cancel();
            }
        });
    });
    Ok(result?)
}

/// While it lives, Ctrl-C ends the process in no other way than by [`interrupted`], however often it
/// is pressed: a file that is being written is removed first.
pub struct Uninterrupted(());

impl Uninterrupted {
    /// From now on.
    pub fn new() -> anyhow::Result<Uninterrupted> {
        handle_interrupts()?;
        UNINTERRUPTED.store(true, Ordering::Relaxed);
        Ok(Uninterrupted(()))
    }
}

impl Drop for Uninterrupted {
    fn drop(&mut self) {
        UNINTERRUPTED.store(false, Ordering::Relaxed);
    }
}

/// True if Ctrl-C was pressed, or the process was asked to end, since [`handle_interrupts`].
pub fn interrupted() -> bool {
    PRESSED.load(Ordering::Relaxed)
}

/// The most memory this process has had resident, in bytes, where the system tells.
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}
