//! Instructions that the kernels execute, counted by valgrind: what no other process, clock or
//! cache can move, so that one per cent more is one per cent more.
//!
//! `cargo bench -p siskin --bench instructions` counts, compares with `benches/record` and fails if
//! a case takes over 2% more than recorded; `-- --record` records. Valgrind has AVX2 and no more, so
//! on x86-64 it is the AVX2 level that is counted (`SISKIN_CPU` names another).
//!
//! Each case runs in a process of its own, once with 1 and once with 3 calls; half of the difference
//! is what a call takes, and the rest of the program cancels out.

mod support;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use siskin_quant::GgmlType;
use siskin_quant::attention::{Attend, KvLayer, KvShape, KvType, partial_len};
use siskin_quant::par::{Pool, Team};
use siskin_quant::table::KernelTable;
use support::{Random, Stream, activations, weight_types};

const LEVEL: &str = if cfg!(target_arch = "aarch64") { "neon" } else { "avx2" };
/// More than this is a failure.
const TOLERANCE: f64 = 1.02;
const ROWS: usize = 64;
const K: usize = 2048;

/// What is counted. Its name is what it is found by.
#[derive(Clone, Copy, Debug)]
enum Case {
    /// A product with so many columns.
    Product(GgmlType, usize),
    /// Attention of so many tokens at a depth of 512.
    Attention(&'static str, KvType, usize),
    /// Quantizing a row of activations.
    Quantize(GgmlType),
}

impl Case {
    /// A type that is added is counted by itself.
    fn all() -> Vec<Case> {
        let products = weight_types().flat_map(|ty| [1, 4, 9, 32].map(|n| Case::Product(ty, n)));
        let caches = [("f16", KvType::F16), ("q8_0", KvType::Q8_0)];
        let attention =
            caches.iter().flat_map(|(name, ty)| [1, 64].map(|n| Case::Attention(name, *ty, n)));
        let quantize = [GgmlType::Q4_0, GgmlType::Q4_K].map(Case::Quantize);
        products.chain(attention).chain(quantize).collect()
    }

    fn name(self) -> String {
        match self {
            Case::Product(ty, n) => format!("{ty} {ROWS}x{K} by {n}"),
            Case::Attention(ty, _, n) => format!("attention {ty}, {n} after 512"),
            Case::Quantize(ty) => format!("activations for {ty}, {K} values"),
        }
    }

    /// Does it so many times.
    fn run(self, calls: usize) {
        let table = KernelTable::for_level(&level()).unwrap_or_else(|e| panic!("{e}"));
        let pool = Pool::new(1).expect("no thread to start");
        pool.scope(|team| match self {
            Case::Product(ty, n) => {
                let x = activations(team, &table, ty, K, n);
                let mut w = Stream::new(ty, ROWS, K, 1);
                let mut out = vec![0.0; ROWS * n];
                for _ in 0..calls {
                    w.multiply(team, &table, &x, &mut out);
                }
            }
            Case::Attention(_, ty, n) => attention(team, &table, ty, n, calls),
            Case::Quantize(ty) => {
                let x = Random::new().floats(K);
                let mut acts = activations(team, &table, ty, K, 1);
                for _ in 0..calls {
                    acts.quantize(team, &table, K, &x);
                }
            }
        });
    }
}

fn attention(team: &mut Team<'_>, table: &KernelTable, ty: KvType, n: usize, calls: usize) {
    let (n_head, n_head_kv, dim, depth) = (8, 2, 64, 512);
    let shape =
        KvShape { n_head_kv, k_dim: dim, v_dim: dim, capacity: depth + n, k_type: ty, v_type: ty };
    let mut rng = Random::new();
    let mut layer = KvLayer::new(&shape).expect("a cache");
    let values = rng.floats((depth + n) * n_head_kv * dim);
    layer.store(table.ops(), 0, &values, &values);
    let q = rng.floats(n * n_head * dim);
    let mut out = vec![0.0; q.len()];
    let mut partial = vec![0.0; partial_len(n_head, dim, depth + n)];
    for _ in 0..calls {
        let mut attend = Attend {
            q: &q,
            n_head,
            pos: depth,
            window: usize::MAX,
            scale: 0.125,
            softcap: 0.0,
            out: &mut out,
            partial: &mut partial,
        };
        layer.attend(team, table.ops(), &mut attend);
    }
}

fn level() -> String {
    std::env::var("SISKIN_CPU").unwrap_or_else(|_| LEVEL.into())
}

/// Instructions of a process that does a case so many times.
fn count(case: Case, calls: usize) -> Result<u64, String> {
    let exe = std::env::current_exe().map_err(|e| e.to_string())?;
    let done = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"])
        .arg(exe)
        .args(["--case", &case.name(), "--calls", &calls.to_string()])
        .output()
        .map_err(|e| format!("valgrind: {e}"))?;
    let said = String::from_utf8_lossy(&done.stderr);
    let refs = said.lines().find_map(|l| l.split_once("I refs:").or(l.split_once("I   refs:")));
    let digits = refs.map(|(_, n)| n.trim().replace(',', ""));
    match digits.and_then(|n| n.parse().ok()) {
        Some(n) if done.status.success() => Ok(n),
        _ => Err(format!("{}: {}\n{said}", case.name(), done.status)),
    }
}

fn record_path() -> PathBuf {
    let name = format!("instructions-{}.tsv", level());
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/record").join(name)
}

fn rustc() -> String {
    let said = Command::new(std::env::var("RUSTC").unwrap_or("rustc".into())).arg("-V").output();
    said.map_or("rustc ?".into(), |o| String::from_utf8_lossy(&o.stdout).trim().into())
}

/// Counts all cases; true if none takes more than is recorded.
fn measure(record: bool, only: Option<&str>) -> Result<bool, String> {
    let recorded = std::fs::read_to_string(record_path()).unwrap_or_default();
    let of = |name: &str| -> Option<u64> {
        let line = recorded.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix('\t'))?;
        line.parse().ok()
    };
    if let Some(by) = recorded.lines().next() {
        println!("recorded: {}", by.trim_start_matches("# "));
    }
    println!("now: {}, {}", level(), rustc());
    let mut lines = format!("# {}, {}\n", level(), rustc());
    let mut good = true;
    for case in Case::all() {
        let name = case.name();
        if only.is_some_and(|part| !name.contains(part)) {
            continue;
        }
        let n = (count(case, 3)? - count(case, 1)?) / 2;
        lines += &format!("{name}\t{n}\n");
        let change = of(&name).map(|old| n as f64 / old as f64);
        let worse = change.is_some_and(|c| c > TOLERANCE);
        let said = change.map_or("new".into(), |c| format!("{:+.2}%", 100.0 * (c - 1.0)));
        println!("{name:40} {n:>12} {said:>9}{}", if worse { "  WORSE" } else { "" });
        good &= !worse;
    }
    if record {
        let path = record_path();
        std::fs::create_dir_all(path.parent().expect("a folder")).map_err(|e| e.to_string())?;
        std::fs::write(&path, lines).map_err(|e| e.to_string())?;
        return Ok(true);
    }
    Ok(good)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| args.iter().skip_while(|a| *a != name).nth(1);
    if let (Some(name), Some(calls)) = (value("--case"), value("--calls")) {
        let case = Case::all().into_iter().find(|c| c.name() == *name).expect("a case");
        case.run(calls.parse().expect("a number"));
        return ExitCode::SUCCESS;
    }
    if !KernelTable::level_names().contains(&level().as_str()) {
        println!("this CPU has no {}: nothing is counted", level());
        return ExitCode::SUCCESS;
    }
    if support::is_test() {
        Case::all().into_iter().for_each(|c| c.run(1));
        return ExitCode::SUCCESS;
    }
    let record = args.iter().any(|a| a == "--record");
    let only = args.iter().find(|a| !a.starts_with("--"));
    if record && only.is_some() {
        eprintln!("--record takes all cases");
        return ExitCode::FAILURE;
    }
    match measure(record, only.map(String::as_str)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}
