//! Sessions: limits, cancelling, memory.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use siskin::gguf::{Builder, GgufFile};
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

fn file(name: &str) -> GgufFile {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/archs");
    GgufFile::open(folder.join(name)).unwrap()
}

fn load(options: &EngineOptions) -> siskin::Result<Engine> {
    Engine::from_file(file("gemma3.gguf"), options)
}

/// An engine of a tiny model that says it was trained for `n_ctx` positions.
fn engine_with_context(n_ctx: u32) -> Engine {
    const KEY: &str = "llama.context_length";
    let file = file("llama.gguf");
    let mut builder = Builder::new();
    builder.copy(file.metadata(), |key| key != KEY).unwrap();
    builder.put(KEY, &n_ctx).unwrap();
    for t in file.tensors() {
        builder.tensor(&t.name, t.ty, &t.shape).unwrap();
    }
    let mut writer = builder.start(Vec::new()).unwrap();
    for t in file.tensors() {
        writer.tensor(&t.name, file.tensor_data(t)).unwrap();
    }
    let file = GgufFile::from_bytes(writer.finish().unwrap()).unwrap();
    let options = EngineOptions { threads: Some(2), ..EngineOptions::default() };
    Engine::from_file(file, &options).unwrap()
}

fn engine() -> Engine {
    load(&EngineOptions { threads: Some(2), ..EngineOptions::default() }).unwrap()
}

/// One test function, since others in this binary would be counted too.
#[test]
fn sessions_keep_their_promises() {
    decoding_allocates_nothing();
    limits_are_errors();
    text_is_streamed_without_allocating();
    cancelling_stops_and_leaves_the_session_usable();
    another_thread_cancels_an_answer_within_a_token();
    another_thread_cancels_a_prompt_within_a_batch();
    memory_limits_refuse_with_the_numbers();
    generation_ends_for_the_reason_it_says();
}

/// `some_tokens` allocates nothing. A thread of an engine that was dropped may end only now, and its end
/// allocates; what a token allocates, it does each time.
fn allocates_nothing(what: &str, mut some_tokens: impl FnMut()) {
    let counts = [(); 3].map(|()| {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        some_tokens();
        ALLOCATIONS.load(Ordering::Relaxed) - before
    });
    assert!(counts.contains(&0), "{counts:?} allocations while {what}");
}

fn decoding_allocates_nothing() {
    let engine = engine();
    let mut session = Session::new(&engine, &SessionOptions::default()).unwrap();
    session.prefill(&[2, 5, 6]).unwrap();
    // The prefill of a whole batch, too.
    allocates_nothing("decoding", || {
        session.prefill(&[7; 20]).unwrap();
        for token in 0..20 {
            session.decode(token).unwrap();
        }
    });

    let options = GenerateOptions {
        sampler: SamplerParams { seed: Some(1), ..SamplerParams::default() },
        ignore_eos: true,
        ..GenerateOptions::default()
    };
    let mut tokens = session.generate(&[2, 5, 6], &options).unwrap();
    // What the sampler keeps grows with the first tokens.
    tokens.by_ref().take(4).for_each(|t| assert!(t.is_ok()));
    allocates_nothing("generating", || {
        assert_eq!(tokens.by_ref().take(12).filter(|t| t.is_ok()).count(), 12);
    });
}

/// What `run`, `chat` and the README's example do, with all that keeps something of its own.
fn text_is_streamed_without_allocating() {
    let engine = engine();
    let mut session = Session::new(&engine, &SessionOptions::default()).unwrap();
    let options = GenerateOptions {
        sampler: SamplerParams {
            seed: Some(1),
            top_k: 0,
            top_p: 0.9,
            penalty_last_n: usize::MAX,
            penalty_repeat: 1.1,
            penalty_freq: 0.1,
            penalty_present: 0.1,
            dry_multiplier: 0.8,
            dry_penalty_last_n: usize::MAX,
            ..SamplerParams::default()
        },
        stop: vec!["a text that does not come".into(), "the and".into()],
        ignore_eos: true,
        special: true,
        ..GenerateOptions::default()
    };
    let mut stream = session.stream(&[2, 5, 6], &options).unwrap();
    let mut bytes = stream.next_piece().unwrap().map_or(0, |piece| piece.len());
    let mut end = 24;
    allocates_nothing("streaming", || {
        while stream.n_tokens() < end
            && let Some(piece) = stream.next_piece().unwrap()
        {
            bytes += piece.len();
        }
        end += 20;
    });
    assert!(stream.n_tokens() >= 64 && bytes >= 64, "{} tokens", stream.n_tokens());
    drop(stream);

    // The iterator gives the same text.
    let text = |n: usize, session: &mut Session| {
        let options = GenerateOptions { max_tokens: n, ..options.clone() };
        let stream = session.stream(&[2, 5, 6], &options).unwrap();
        stream.collect::<siskin::Result<String>>().unwrap()
    };
    let short = text(70, &mut session);
    let mut lent = String::new();
    let options = GenerateOptions { max_tokens: 70, ..options.clone() };
    let mut stream = session.stream(&[2, 5, 6], &options).unwrap();
    while let Some(piece) = stream.next_piece().unwrap() {
        lent += piece;
    }
    assert_eq!(lent, short);
    assert!(stream.next_piece().unwrap().is_none(), "the end stays the end");
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

fn another_thread_cancels_an_answer_within_a_token() {
    let engine = engine_with_context(1 << 20);
    let options = SessionOptions { n_ctx: Some(1 << 20), ..SessionOptions::default() };
    let mut session = Session::new(&engine, &options).unwrap();
    let handle = session.cancel_handle();
    let generate = GenerateOptions { ignore_eos: true, ..GenerateOptions::default() };
    let tokens = session.generate(&[2, 5, 6], &generate).unwrap();
    let seen = AtomicUsize::new(0);
    let (total, at) = std::thread::scope(|scope| {
        let seen = &seen;
        let canceller = scope.spawn(move || {
            while seen.load(Ordering::Acquire) < 50 {
                std::thread::yield_now();
            }
            handle.cancel();
            seen.load(Ordering::Acquire)
        });
        for token in tokens {
            match token {
                Ok(_) => seen.fetch_add(1, Ordering::Release),
                Err(Error::Cancelled) => break,
                Err(error) => panic!("{error}"),
            };
        }
        (seen.load(Ordering::Acquire), canceller.join().unwrap())
    });
    // The token that was computed just then may still have come.
    assert!((50..=at + 1).contains(&total), "{total} tokens, cancelled at {at}");
    assert!(session.decode(7).is_ok(), "the session goes on");
}

fn another_thread_cancels_a_prompt_within_a_batch() {
    const BATCH: usize = 16;
    let engine = engine_with_context(1 << 20);
    let options =
        SessionOptions { n_ctx: Some(1 << 20), n_batch: BATCH, ..SessionOptions::default() };
    let mut session = Session::new(&engine, &options).unwrap();
    let prompt = vec![7; 1 << 20];
    let seen = AtomicUsize::new(0);
    let cancel_at = |n: usize, session: &Session| {
        let (handle, seen) = (session.cancel_handle(), &seen);
        move || {
            while seen.load(Ordering::Acquire) < n {
                std::thread::yield_now();
            }
            handle.cancel();
            seen.load(Ordering::Acquire)
        }
    };
    let at = std::thread::scope(|scope| {
        let canceller = scope.spawn(cancel_at(10 * BATCH, &session));
        let result = session.prefill_all(&prompt, |pos, _| {
            seen.store(pos + 1, Ordering::Release);
            Ok(())
        });
        assert!(matches!(result, Err(Error::Cancelled)));
        canceller.join().unwrap()
    });
    let kept = session.tokens().len();
    assert!(kept.is_multiple_of(BATCH), "{kept} tokens are not whole batches");
    assert!((9 * BATCH..=at + BATCH).contains(&kept), "{kept} tokens, cancelled at {at}");

    // Without the logits of each token nothing tells how far it is: it just has to end, which
    // by itself it does after minutes.
    session.rewind(0);
    let cancel = cancel_at(0, &session);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(20));
            cancel()
        });
        assert!(matches!(session.prefill(&prompt), Err(Error::Cancelled)));
    });
    let kept = session.tokens().len();
    assert!(kept < prompt.len() && kept.is_multiple_of(BATCH), "{kept}");
    let want = session.tokens().to_vec();
    assert!(session.decode(7).is_ok() && session.tokens()[..kept] == want, "the session goes on");
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
