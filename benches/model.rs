//! A whole decoding step and a prompt of 512 tokens, on all threads, and two engines that decode at the
//! same time, as many threads each. `SISKIN_BENCH_MODELS` names
//! the files, as `PATH` names folders; without it, a model of SmolLM2-135M's shape with random
//! weights is made in memory.

#[path = "../tools/cli/src/shape.rs"]
#[allow(dead_code)]
mod shape;
mod support;

use std::time::Duration;

use criterion::{Criterion, SamplingMode, Throughput};
use siskin::gguf::GgufFile;
use siskin::{Engine, EngineOptions, Session, SessionOptions};

const PROMPT: usize = 512;
/// Positions that decoding goes through, again and again.
const DECODE: usize = 64;

fn session(file: &GgufFile) -> Session {
    let options = EngineOptions { threads: Some(support::threads()), ..EngineOptions::default() };
    let engine = Engine::from_file(file.clone(), &options).unwrap_or_else(|e| panic!("{e}"));
    let options = SessionOptions { n_ctx: Some(PROMPT + DECODE), ..SessionOptions::default() };
    Session::new(&engine, &options).unwrap_or_else(|e| panic!("{e}"))
}

fn decode(session: &mut Session, token: u32) {
    if session.tokens().len() >= DECODE {
        session.rewind(0);
    }
    session.decode(token).expect("room for a token");
}

fn model(c: &mut Criterion, name: &str, file: &GgufFile) {
    let mut session = session(file);
    let engine = session.engine().clone();
    let mut rng = support::Random::new();
    let n_vocab = engine.hparams().n_vocab as u64;
    let mut tokens = |n: usize| (0..n).map(|_| (rng.next() % n_vocab) as u32).collect::<Vec<_>>();
    let mut group = c.benchmark_group(format!("model/{name}"));

    let token = tokens(1)[0];
    group.throughput(Throughput::Elements(1));
    group.bench_function("decode", |b| b.iter(|| decode(&mut session, token)));

    let prompt = tokens(if support::is_test() { 32 } else { PROMPT });
    group.throughput(Throughput::Elements(prompt.len() as u64));
    group.sampling_mode(SamplingMode::Flat).measurement_time(Duration::from_secs(2));
    group.bench_function(format!("prefill {}", prompt.len()), |b| {
        b.iter(|| {
            session.rewind(0);
            session.prefill(&prompt).expect("room for the prompt");
        });
    });
    group.finish();
}

/// Two engines, each with as many threads as there are, decode together.
fn two(c: &mut Criterion, name: &str, file: &GgufFile) {
    let mut sessions = [session(file), session(file)];
    let mut group = c.benchmark_group(format!("model/{name}"));
    group.sampling_mode(SamplingMode::Flat).measurement_time(Duration::from_secs(2));
    group.throughput(Throughput::Elements(2 * DECODE as u64));
    group.bench_function(format!("decode {DECODE}, two engines at once"), |b| {
        b.iter(|| {
            std::thread::scope(|scope| {
                for session in &mut sessions {
                    scope.spawn(|| (0..DECODE).for_each(|_| decode(session, 1)));
                }
            });
        });
    });
    group.finish();
}

fn main() {
    let mut c = support::criterion();
    let models = support::models();
    for path in &models {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let file = GgufFile::open(path).unwrap_or_else(|e| panic!("{e}"));
        model(&mut c, &name, &file);
        two(&mut c, &name, &file);
    }
    if models.is_empty() {
        let file = shape::make("smollm2-135m", "q4_1").expect("a model");
        model(&mut c, "smollm2-135m, random weights", &file);
        two(&mut c, "smollm2-135m, random weights", &file);
    }
    c.final_summary();
}
