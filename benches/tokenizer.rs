//! Encoding text: bytes a second of English, and of texts made to be slow, with vocabularies that
//! are learned from this project's licence text. `SISKIN_BENCH_MODELS` names the files of models
//! whose vocabularies are measured too.

#[path = "../tests/tokenizer/fixture.rs"]
#[allow(dead_code)]
mod fixture;
mod support;

use std::collections::HashMap;
use std::hint::black_box;

use criterion::{Criterion, Throughput};
use siskin::EncodeOptions;
use siskin::gguf::GgufFile;
use siskin::tokenizer::{Tokenizer, TokenizerOptions};

const ENGLISH: &str = include_str!("../LICENSE-APACHE");
const MERGES: usize = 2000;

/// Merges in the order in which byte-pair encoding learns them: the most frequent pair first.
fn learn(text: &str) -> Vec<(String, String)> {
    let mut words: HashMap<Vec<String>, usize> = HashMap::new();
    // A word takes the space before it along.
    for word in text.split_inclusive(char::is_whitespace) {
        let word = format!(" {}", word.trim());
        let letters = word.bytes().map(|b| fixture::byte_char(b).to_string()).collect();
        *words.entry(letters).or_default() += 1;
    }
    let mut merges = Vec::new();
    while merges.len() < MERGES {
        let mut pairs: HashMap<(&str, &str), usize> = HashMap::new();
        for (word, n) in &words {
            for pair in word.windows(2) {
                *pairs.entry((&pair[0], &pair[1])).or_default() += n;
            }
        }
        // Of pairs as frequent, the first: the same vocabulary in each run.
        let best = pairs.into_iter().max_by(|a, b| a.1.cmp(&b.1).then(b.0.cmp(&a.0)));
        let Some(((a, b), _)) = best else { break };
        let (a, b) = (a.to_string(), b.to_string());
        words = words
            .into_iter()
            .map(|(word, n)| {
                let mut merged: Vec<String> = Vec::with_capacity(word.len());
                for letter in word {
                    match merged.last_mut() {
                        Some(last) if *last == a && letter == b => *last += &letter,
                        _ => merged.push(letter),
                    }
                }
                (merged, n)
            })
            .collect();
        merges.push((a, b));
    }
    merges
}

fn bpe(merges: &[(String, String)]) -> Tokenizer {
    let merges: Vec<String> = merges.iter().map(|(a, b)| format!("{a} {b}")).collect();
    fixture::bpe("gpt-2", &merges.iter().map(String::as_str).collect::<Vec<_>>()).build()
}

/// The same vocabulary as scores: what was learned earlier is taken first.
fn spm(merges: &[(String, String)]) -> Tokenizer {
    let space = fixture::byte_char(b' ');
    let letters = (b'!'..=b'~').map(|b| (b as char).to_string()).chain(["\u{2581}".into()]);
    let learned = merges.iter().map(|(a, b)| format!("{a}{b}").replace(space, "\u{2581}"));
    let tokens: Vec<String> = letters.chain(learned).collect();
    let scored: Vec<_> = tokens.iter().zip(0..).map(|(t, i)| (t.as_str(), -(i as f32))).collect();
    fixture::spm(&scored).build()
}

fn measure(c: &mut Criterion, name: &str, tokenizer: &Tokenizer) {
    let bytes = if support::is_test() { 1 << 12 } else { 1 << 20 };
    let english = ENGLISH.repeat(bytes / ENGLISH.len() + 1);
    let texts = [
        ("English", english.get(..bytes).expect("ASCII").to_string()),
        ("spaces", " ".repeat(bytes)),
        ("a", "a".repeat(bytes)),
        // Four times as long takes four times as long, where time is linear.
        ("a, a quarter", "a".repeat(bytes / 4)),
    ];
    let mut group = c.benchmark_group(format!("tokenizer/{name}"));
    for (text_name, text) in &texts {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(*text_name, |b| {
            b.iter(|| black_box(tokenizer.encode(text, EncodeOptions::default()).expect("tokens")));
        });
    }
    group.finish();
}

fn main() {
    let mut c = support::criterion();
    let merges = learn(ENGLISH);
    measure(&mut c, "bpe", &bpe(&merges));
    measure(&mut c, "spm", &spm(&merges));
    for path in support::models() {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let file = GgufFile::open(&path).unwrap_or_else(|e| panic!("{e}"));
        let tokenizer = Tokenizer::from_gguf(file.metadata(), &TokenizerOptions::default());
        measure(&mut c, &name, &tokenizer.unwrap_or_else(|e| panic!("{e}")));
    }
    c.final_summary();
}
