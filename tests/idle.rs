//! What threads do beside computing: nothing. A file of its own, so that no other test's threads run.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use siskin::{Engine, EngineOptions, Session, SessionOptions};

fn engine(model: &str) -> Engine {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/archs").join(model);
    let options = EngineOptions { threads: Some(3), ..EngineOptions::default() };
    Engine::load(path, &options).unwrap()
}

fn session(engine: &Engine) -> Session {
    Session::new(engine, &SessionOptions::default()).unwrap()
}

/// The time on a CPU of all engines' threads, in the system's ticks (10 ms mostly), and how many
/// threads that are.
fn ticks() -> (u64, usize) {
    let (mut sum, mut threads) = (0, 0);
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let Ok(stat) = fs::read_to_string(task.unwrap().path().join("stat")) else { continue };
        // The name, in brackets, may have spaces.
        let (name, rest) = stat.rsplit_once(')').unwrap();
        if name.contains("(siskin-") {
            let fields: Vec<_> = rest.split_whitespace().collect();
            sum += fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
            threads += 1;
        }
    }
    (sum, threads)
}

/// The logits after a prompt and some tokens.
fn logits(engine: &Engine) -> Vec<f32> {
    let mut session = session(engine);
    session.prefill(&[3, 14, 15, 9, 26, 5, 35, 8]).unwrap();
    for i in 0..40 {
        session.decode(i % 20).unwrap();
    }
    session.logits().to_vec()
}

#[test]
fn engines_that_wait_use_no_cpu_and_two_do_not_disturb_each_other() {
    let engines = [engine("llama.gguf"), engine("gemma3.gguf")];
    let alone = engines.each_ref().map(logits);
    std::thread::scope(|scope| {
        // Two callers for each: sessions of one engine take turns.
        let both = [0, 1, 0, 1].map(|i| {
            let engine = &engines[i];
            scope.spawn(move || (i, (0..20).map(|_| logits(engine)).collect::<Vec<_>>()))
        });
        for thread in both {
            let (i, all) = thread.join().unwrap();
            assert!(all.iter().all(|logits| *logits == alone[i]));
        }
    });
    // What spins after the last step is over by then.
    sleep(Duration::from_millis(300));
    let (before, threads) = ticks();
    assert_eq!(threads, 4);
    sleep(Duration::from_secs(1));
    let used = ticks().0 - before;
    assert!(used <= 1, "{used} ticks in a second");
}
