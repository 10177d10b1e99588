//! Sessions: limits, cancelling, memory.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use siskin::sampler::SamplerParams;
use siskin::{Engine, EngineOptions, Error, Finish, GenerateOptions, Session, SessionOptions};

/// Counts allocations.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: hands everything to the system's allocator.
unsafe impl std::alloc::GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: std::alloc::Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { std::alloc::System.alloc(layout) }
    }
    unsafe fn dealloc(&self, p: *mut u8, layout: std::alloc::Layout) {
        // SAFETY: the caller's promise.
        unsafe { std::alloc::System.dealloc(p, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn load(options: &EngineOptions) -> siskin::Result<Engine> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/archs");
    Engine::load(folder.join("gemma3.gguf"), options)
}

fn engine() -> Engine {
    load(&EngineOptions { threads: Some(2), ..EngineOptions::default() }).unwrap()
}

/// One test function, since others in this binary would be counted too.
#[test]
fn sessions_keep_their_promises() {
    decoding_allocates_nothing();
    limits_are_errors();
    cancelling_stops_and_leaves_the_session_usable();
    memory_limits_refuse_with_the_numbers();
    generation_ends_for_the_reason_it_says();
}

fn decoding_allocates_nothing() {
    let engine = engine();
    let mut session = Session::new(&engine, &SessionOptions::default()).unwrap();
    session.prefill(&[2, 5, 6]).unwrap();
    // The prefill of a whole batch, too.
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    session.prefill(&[7; 20]).unwrap();
    for token in 0..20 {
        session.decode(token).unwrap();
    }
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 0, "allocations while decoding");

    let options = GenerateOptions {
        sampler: SamplerParams { seed: Some(1), ..SamplerParams::default() },
        ignore_eos: true,
        ..GenerateOptions::default()
    };
    let mut tokens = session.generate(&[2, 5, 6], &options).unwrap();
    // What the sampler keeps grows with the first tokens.
    tokens.by_ref().take(4).for_each(|t| assert!(t.is_ok()));
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    tokens.by_ref().take(12).for_each(|t| assert!(t.is_ok()));
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 0, "allocations while generating");
}

fn limits_are_errors() {
    let engine = engine();
    let small = SessionOptions { n_ctx: Some(8), ..SessionOptions::default() };
    let mut session = Session::new(&engine, &small).unwrap();
    assert!(matches!(session.prefill(&[]), Err(Error::Invalid(_))));
    assert!(matches!(session.prefill(&[1 << 30]), Err(Error::Invalid(_))));
    assert!(matches!(session.prefill(&[1; 9]), Err(Error::Context { wanted: 9, n_ctx: 8 })));
    session.prefill(&[1; 8]).unwrap();
    assert!(matches!(session.decode(1), Err(Error::Context { .. })));
    for bad in [
        SessionOptions { n_ctx: Some(0), ..small.clone() },
        SessionOptions { n_ctx: Some(1 << 30), ..small.clone() },
        SessionOptions { n_batch: 0, ..small.clone() },
    ] {
        assert!(matches!(Session::new(&engine, &bad), Err(Error::Invalid(_))));
    }
    let threads = EngineOptions { threads: Some(0), ..EngineOptions::default() };
    assert!(matches!(load(&threads), Err(Error::Invalid(_))));
    let level = EngineOptions { level: Some("vax".into()), ..EngineOptions::default() };
    let Err(Error::Invalid(text)) = load(&level) else { panic!("a level that does not exist") };
    assert!(text.contains("scalar"), "{text}");
}

fn cancelling_stops_and_leaves_the_session_usable() {
    let engine = engine();
    let mut session = Session::new(&engine, &SessionOptions::default()).unwrap();
    let want = session.prefill(&[2, 5, 6]).unwrap().to_vec();
    session.rewind(0);
    session.cancel_handle().cancel();
    assert!(matches!(session.prefill(&[2, 5, 6]), Err(Error::Cancelled)));
    assert!(session.tokens().is_empty());
    assert_eq!(session.prefill(&[2, 5, 6]).unwrap(), want);
    // One that came too late can be taken back.
    session.cancel_handle().cancel();
    session.cancel_handle().clear();
    assert!(session.decode(7).is_ok());
}

fn memory_limits_refuse_with_the_numbers() {
    let options = EngineOptions { mem_limit: Some(100_000), ..EngineOptions::default() };
    let engine = load(&options).unwrap();
    let Err(Error::Memory(text)) = Session::new(&engine, &SessionOptions::default()) else {
        panic!("100 kB are enough");
    };
    for part in ["weights", "KV cache", "workspace", "limit"] {
        assert!(text.contains(part), "{text}");
    }
    // Before any of the file is read ahead.
    let ahead = load(&EngineOptions { prefault: true, ..options });
    assert!(matches!(ahead, Err(Error::Memory(_))));
    // A limit above what the machine has does not stand in for memory.
    let options = EngineOptions { mem_limit: Some(u64::MAX), ..EngineOptions::default() };
    let engine = load(&options).unwrap();
    let huge = SessionOptions { n_batch: usize::MAX / 4, ..SessionOptions::default() };
    assert!(Session::new(&engine, &huge).is_ok(), "a batch is never more than the context");
}

fn generation_ends_for_the_reason_it_says() {
    let engine = engine();
    let small = SessionOptions { n_ctx: Some(16), ..SessionOptions::default() };
    let mut session = Session::new(&engine, &small).unwrap();
    let greedy = GenerateOptions {
        sampler: SamplerParams::greedy(),
        ignore_eos: true,
        max_tokens: 5,
        ..GenerateOptions::default()
    };
    let mut tokens = session.generate(&[2, 5, 6], &greedy).unwrap();
    let five: Vec<u32> = tokens.by_ref().map(|t| t.unwrap()).collect();
    assert_eq!(five.len(), 5);
    assert_eq!(tokens.finish(), Some(&Finish::MaxTokens));

    let unlimited = GenerateOptions { max_tokens: usize::MAX, ..greedy };
    let mut tokens = session.generate(&[2, 5, 6], &unlimited).unwrap();
    let all: Vec<u32> = tokens.by_ref().map(|t| t.unwrap()).collect();
    // The last token is given out, but there is no position left to compute it at.
    assert_eq!(all.len(), 16 - 3 + 1);
    assert_eq!(all[..5], five);
    assert_eq!(tokens.finish(), Some(&Finish::ContextFull));
}
