//! Structured mutation: files that are right but for one or a few fields. None panics, none costs
//! more memory than a small multiple of its size, whatever it claims.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use siskin::gguf::{Builder, ByteOrder, GgufFile, Value};

use crate::alloc::most_held;
use crate::folder::{RealModel, models};
use crate::sample::realistic;

/// SplitMix64: the same numbers on every machine.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }
}

/// Where the fields of a good file are, by kind.
#[derive(Default)]
struct Map {
    /// Counts and lengths, of 8 bytes.
    lengths: Vec<usize>,
    /// Types and numbers of dimensions, of 4 bytes.
    types: Vec<usize>,
    /// Dimensions and offsets of tensors, of 8 bytes.
    sizes: Vec<usize>,
    /// Numbers and truth values of keys, and their sizes.
    values: Vec<(usize, usize)>,
    /// Whole pairs and tensor infos.
    sections: Vec<Range<usize>>,
    /// The end of the infos.
    header: usize,
    big: bool,
}

/// Reads a good file field by field, with no care at all.
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    map: Map,
}

impl Walk<'_> {
    fn number(&mut self, size: usize) -> u64 {
        let mut bytes = self.bytes[self.at..self.at + size].to_vec();
        self.at += size;
        if self.map.big {
            bytes.reverse();
        }
        bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))
    }

    fn length(&mut self) -> usize {
        // Of a vocabulary a few hundred are enough.
        if self.map.lengths.len() < 2000 || self.at.is_multiple_of(97) {
            self.map.lengths.push(self.at);
        }
        self.number(8) as usize
    }

    fn ty(&mut self) -> u64 {
        self.map.types.push(self.at);
        self.number(4)
    }

    fn size(&mut self) {
        self.map.sizes.push(self.at);
        self.at += 8;
    }

    fn string(&mut self) {
        self.at += self.length();
    }

    fn value(&mut self, ty: u64) {
        match ty {
            8 => self.string(),
            9 => {
                let (ty, len) = (self.ty(), self.length());
                (0..len).for_each(|_| self.value(ty));
            }
            _ => self.at += [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8][ty as usize],
        }
    }
}

fn map_of(bytes: &[u8]) -> Map {
    let map = Map { big: bytes[4] == 0, ..Map::default() };
    let mut w = Walk { bytes, at: 8, map };
    let (n_tensors, n_pairs) = (w.length(), w.length());
    for _ in 0..n_pairs {
        let start = w.at;
        w.string();
        let ty = w.ty();
        let value = w.at;
        w.value(ty);
        if !matches!(ty, 8 | 9) {
            w.map.values.push((value, w.at - value));
        }
        w.map.sections.push(start..w.at);
    }
    for _ in 0..n_tensors {
        let start = w.at;
        w.string();
        let n_dims = w.ty();
        (0..n_dims).for_each(|_| w.size());
        w.ty();
        w.size();
        w.map.sections.push(start..w.at);
    }
    w.map.header = w.at;
    w.map
}

fn put(bytes: &mut [u8], big: bool, at: usize, size: usize, value: u64) {
    let mut le = value.to_le_bytes()[..size].to_vec();
    if big {
        le.reverse();
    }
    bytes[at..at + size].copy_from_slice(&le);
}

fn get(bytes: &[u8], big: bool, at: usize, size: usize) -> u64 {
    let mut le = [0; 8];
    le[..size].copy_from_slice(&bytes[at..at + size]);
    if big {
        le[..size].reverse();
    }
    u64::from_le_bytes(le)
}

/// What a length or an offset is set to.
fn extreme(rng: &mut Rng, now: u64, file: usize) -> u64 {
    let file = file as u64;
    let all = [
        0,
        1,
        now.wrapping_add(1),
        now.wrapping_sub(1),
        now.wrapping_mul(2),
        now ^ 1 << (rng.next() % 64),
        file,
        file.wrapping_sub(rng.next() % file.max(1)),
        file / 8,
        file / 13,
        file / 33,
        u64::from(u32::MAX),
        1 << 32,
        1 << 60,
        1 << 61,
        i64::MAX as u64,
        1 << 63,
        u64::MAX - 31,
        u64::MAX,
        rng.next(),
    ];
    all[rng.below(all.len())]
}

/// What a number of a key is set to: integers and floats at the ends of what models may have.
fn odd_value(rng: &mut Rng, now: u64) -> u64 {
    let float = |x: f32| u64::from(x.to_bits());
    let all = [
        0,
        1,
        2,
        now.wrapping_add(1),
        now.wrapping_sub(1),
        now.wrapping_mul(2),
        now / 2,
        1 << 16,
        1 << 24,
        (1 << 24) + 1,
        i32::MAX as u64,
        1 << 31,
        u64::MAX,
        rng.next() % 300,
        rng.next(),
        float(0.5),
        float(-1.0),
        float(1e-45),
        float(f32::MAX),
        float(f32::INFINITY),
        float(f32::NAN),
    ];
    all[rng.below(all.len())]
}

/// Changes one thing.
fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>, map: &Map) {
    match rng.below(12) {
        0 => {
            for _ in 0..=rng.below(4) {
                let at = rng.below(map.header.min(bytes.len()));
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << rng.below(8);
                }
            }
        }
        // The counts and the first lengths as often as all others together.
        kind @ 1..=4 => {
            let fields = match kind {
                1 => &map.lengths[..],
                2 => &map.lengths[..map.lengths.len().min(60)],
                3 => &map.sizes[..],
                _ => &map.types[..],
            };
            let Some(at) = rng.pick(fields).copied() else { return };
            if at + 8 > bytes.len() {
                return;
            }
            if kind == 4 {
                let other = [rng.next() % 50, rng.next() % 14, rng.next(), 8, 9, u64::MAX];
                put(bytes, map.big, at, 4, other[rng.below(6)]);
            } else {
                let value = extreme(rng, get(bytes, map.big, at, 8), bytes.len());
                put(bytes, map.big, at, 8, value);
            }
        }
        5 => bytes.truncate(rng.below(bytes.len())),
        // A section a second time, at its end or at that of another.
        6 => {
            let to = rng.pick(&map.sections).map_or(0, |r| r.end);
            let Some(section) = rng.pick(&map.sections).cloned() else { return };
            let at = if rng.below(2) == 0 { section.end } else { to };
            if section.end <= bytes.len() && at <= bytes.len() {
                let copy = bytes[section].to_vec();
                bytes.splice(at..at, copy);
            }
        }
        7 => {
            let Some(section) = rng.pick(&map.sections).cloned() else { return };
            if section.end <= bytes.len() {
                bytes.drain(section);
            }
        }
        8..=10 => {
            let Some((at, size)) = rng.pick(&map.values).copied() else { return };
            if at + 8 <= bytes.len() {
                let now = get(bytes, map.big, at, size);
                let value = odd_value(rng, now);
                put(bytes, map.big, at, size, value);
            }
        }
        _ => {
            let from = rng.below(bytes.len());
            let len = rng.below(64).min(bytes.len() - from);
            let with = [0, 0xff, rng.next() as u8][rng.below(3)];
            bytes[from..from + len].fill(with);
        }
    }
}

/// Asks everything of a file that an accepted one can be asked.
pub fn use_all(file: &GgufFile) {
    for (key, value) in file.metadata().iter() {
        let found = file.metadata().get(key).expect("it is listed");
        assert_eq!(found.ty(), value.ty(), "{key}");
        let _ = (file.metadata().u32(key), file.metadata().f32(key), file.metadata().str(key));
        if let Value::Array(array) = value {
            let ends = [0, array.len() / 2, array.len().wrapping_sub(1)];
            assert!(array.is_empty() || ends.iter().all(|i| array.get(*i).is_some()), "{key}");
            assert!(array.get(array.len()).is_none());
            array.iter().take(20).for_each(drop);
            array.iter_bytes().take(20).for_each(drop);
        }
    }
    for tensor in file.tensors() {
        assert_eq!(file.tensor_data(tensor).len() as u64, tensor.n_bytes, "{}", tensor.name);
        assert_eq!(file.tensor(&tensor.name), Some(tensor));
    }
}

/// Gives `f` as many mutants of a good file as `cases` says, always the same ones, and counts those
/// that it says yes to. Each has from one to `most` changes. A panic names the mutant.
pub fn mutants(
    name: &str,
    good: &[u8],
    cases: usize,
    seed: u64,
    most: usize,
    mut f: impl FnMut(Vec<u8>) -> bool,
) -> usize {
    let map = map_of(good);
    let mut rng = Rng(seed);
    let mut accepted = 0;
    for case in 0..cases {
        let mut bytes = good.to_vec();
        for _ in 0..1 + rng.below(most) {
            mutate(&mut rng, &mut bytes, &map);
        }
        match catch_unwind(AssertUnwindSafe(|| f(bytes))) {
            Ok(yes) => accepted += usize::from(yes),
            Err(_) => panic!("{name}: mutant {case} of seed {seed} fails, as said above"),
        }
    }
    accepted
}

/// Opens mutants and says how many are accepted.
fn run(name: &str, good: &[u8], cases: usize, seed: u64) -> usize {
    mutants(name, good, cases, seed, 3, |bytes| {
        // The bytes themselves are allocated before.
        let limit = 3 * bytes.len() + (64 << 10);
        let (result, held) = most_held(|| {
            let file = GgufFile::from_bytes(bytes);
            if let Ok(file) = &file {
                use_all(file);
            }
            file.map(drop)
        });
        assert!(held <= limit, "{held} bytes held, {limit} allowed");
        result.map_err(|e| assert!(!e.to_string().is_empty())).is_ok()
    })
}

#[test]
fn ten_thousand_mutations_of_a_small_file_are_read_or_refused() {
    for (seed, order) in [(1, ByteOrder::Little), (2, ByteOrder::Big)] {
        let good = realistic(3, order, 300);
        let accepted = run("sample", &good, 5000, seed);
        // Changes within text and numbers are no fault; if all or none were accepted, the
        // mutations would be no test.
        assert!((100..4000).contains(&accepted), "{order:?}: {accepted} of 5000 accepted");
    }
}

/// The header of a real file, with one row of each tensor.
fn cut(file: &GgufFile) -> siskin::Result<Vec<u8>> {
    let mut b = Builder::with_format(file.version(), file.byte_order())?;
    b.copy(file.metadata(), |_| true)?;
    for t in file.tensors() {
        b.tensor(&t.name, t.ty, &t.shape[..1])?;
    }
    let mut writer = b.start(Vec::new())?;
    for t in file.tensors() {
        let row = t.n_bytes / t.shape[1..].iter().product::<u64>();
        writer.tensor(&t.name, &file.tensor_data(t)[..row as usize])?;
    }
    writer.finish()
}

#[test]
fn ten_thousand_mutations_of_a_real_model_are_read_or_refused() {
    // The smallest; the others' headers are alike and larger.
    let bytes = |m: &RealModel| m.path.metadata().map_or(u64::MAX, |m| m.len());
    let Some(RealModel { path, .. }) = models().into_iter().min_by_key(bytes) else { return };
    let file = GgufFile::open(&path).unwrap_or_else(|e| panic!("{e}"));
    let good = cut(&file).expect("a good file");
    let run = |seed| run("model", &good, 5000, seed);
    let accepted: usize = std::thread::scope(|s| {
        let threads = [3, 4].map(|seed| s.spawn(move || run(seed)));
        threads.map(|t| t.join().expect("no panic")).iter().sum()
    });
    assert!((100..8000).contains(&accepted), "{accepted} of 10000 accepted");
}
