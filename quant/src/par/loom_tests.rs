//! Every interleaving that loom finds, of a leader and one or two workers.

use super::*;
use loom::thread;

/// Runs `lead` with `workers` threads in every order; each must end when it is sent home.
fn explore(workers: usize, preemptions: usize, lead: fn(&mut Team<'_>)) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(move || {
        let shared = Arc::new(Shared::new(1 + workers));
        let threads: Vec<_> = (0..workers)
            .map(|i| {
                let shared = shared.clone();
                thread::spawn(move || shared.worker(1 + i, Scratch::new().unwrap()))
            })
            .collect();
        let leader = Mutex::new(Scratch::new().unwrap());
        let scratch = leader.lock().unwrap();
        lead(&mut Team { shared: &shared, scratch, n_threads: workers + 1 });
        shared.stop();
        threads.into_iter().for_each(|t| t.join().unwrap());
    });
}

/// A step of `n` chunks, of which each writes its own cell: loom fails if two threads have one,
/// or if a chunk is not over, or not seen, when the step is.
fn step(team: &mut Team<'_>, n: usize) {
    let cells: Vec<_> = (0..n).map(|_| UnsafeCell::new(0)).collect();
    let shared = Cells(&cells);
    team.run(n, &|chunk, _| {
        // SAFETY: as loom says.
        shared.get()[chunk].with_mut(|x| unsafe { *x += chunk + 1 });
    });
    for (i, cell) in cells.iter().enumerate() {
        // SAFETY: as loom says.
        cell.with(|x| assert_eq!(unsafe { *x }, i + 1));
    }
}

struct Cells<'a>(&'a [UnsafeCell<usize>]);

impl Cells<'_> {
    fn get(&self) -> &[UnsafeCell<usize>] {
        self.0
    }
}

// SAFETY: what is to be shown; loom checks every access.
unsafe impl Sync for Cells<'_> {}

#[test]
fn steps_follow_each_other_with_one_worker() {
    explore(1, 3, |team| {
        step(team, 2);
        step(team, 3);
    });
}

#[test]
fn a_thread_helps_another() {
    // Two chunks each: enough for a worker that is early to take one of the leader's.
    explore(1, 2, |team| step(team, 4));
}

#[test]
fn steps_follow_each_other_with_two_workers() {
    explore(2, 1, |team| {
        step(team, 2);
        step(team, 2);
    });
}

#[test]
fn a_pool_without_steps_ends() {
    explore(2, 3, |_| {});
}

#[test]
fn a_panic_is_seen_by_the_leader() {
    // loom runs everything on one thread, whose hook would print each.
    std::panic::set_hook(Box::new(|_| {}));
    explore(1, 3, |team| {
        let run = AssertUnwindSafe(|| team.run(2, &|chunk, _| assert!(chunk != 1)));
        assert!(catch_unwind(run).is_err());
        step(team, 2);
    });
}
