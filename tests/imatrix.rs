//! What a session sums for an importance matrix.

use std::path::Path;

use siskin::gguf::GgufFile;
use siskin::model::{ImatrixOptions, InputSums, SKETCH, sketch_signs};
use siskin::{Engine, EngineOptions, KvType, Session, SessionOptions, kernel_levels};

const TOKENS: [u32; 24] =
    [2, 5, 6, 40, 41, 7, 7, 90, 12, 3, 55, 56, 57, 8, 9, 10, 33, 32, 31, 30, 77, 4, 5, 6];

fn engine(name: &str, threads: usize, level: Option<&str>) -> Engine {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/archs");
    let (threads, level) = (Some(threads), level.map(String::from));
    let options = EngineOptions { threads, level, ..EngineOptions::default() };
    Engine::load(folder.join(format!("{name}.gguf")), &options).unwrap()
}

fn session(engine: &Engine, n_batch: usize) -> Session {
    let (k_type, v_type) = (KvType::F32, KvType::F32);
    Session::new(engine, &SessionOptions { n_batch, k_type, v_type, n_ctx: None }).unwrap()
}

/// The sums of the tokens, with the output matrix if all of the logits are asked for.
fn collect(engine: &Engine, n_batch: usize, all: bool) -> Vec<InputSums> {
    let mut session = session(engine, n_batch);
    session.collect_imatrix(ImatrixOptions { output: all, sketch: true, forget: false }).unwrap();
    if all {
        session.prefill_all(&TOKENS, |_, _| Ok(())).unwrap();
    } else {
        session.prefill(&TOKENS).unwrap();
    }
    let sums = session.take_imatrix().unwrap();
    assert_eq!(session.take_imatrix(), None);
    sums
}

/// A Llama in f64, written for this test.
struct Llama {
    file: GgufFile,
    /// The inputs' squares, added up over the tokens, as the weights are met.
    sums: Vec<Vec<f64>>,
    /// What sketches of them hold.
    sketches: Vec<Vec<[f64; SKETCH]>>,
}

impl Llama {
    fn tensor(&self, name: &str) -> Vec<f64> {
        let tensor = self.file.tensor(name).unwrap();
        let (values, _) = self.file.tensor_data(tensor).as_chunks();
        values.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect()
    }

    fn times(&self, name: &str, x: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let w = self.tensor(name);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum();
        x.iter().map(|x| w.chunks_exact(x.len()).map(|w| dot(w, x)).collect()).collect()
    }

    fn norm(&self, name: &str, x: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let w = self.tensor(name);
        let row = |x: &Vec<f64>| {
            let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
            let scale = 1.0 / (mean + f64::from(1e-5f32)).sqrt();
            x.iter().zip(&w).map(|(x, w)| x * scale * w).collect()
        };
        x.iter().map(row).collect()
    }

    fn meet(&mut self, x: &[Vec<f64>]) {
        let column = |j: usize| x.iter().map(|row| row[j] * row[j]).sum();
        self.sums.push((0..x[0].len()).map(column).collect());
        let signs: Vec<_> = (0..x[0].len()).map(|j| sketch_signs(j).map(f64::from)).collect();
        // Of column j with all columns, each with its signs.
        let sketch = |j: usize| {
            std::array::from_fn(|i| {
                let product = |row: &Vec<f64>| {
                    let signed = row.iter().zip(&signs).map(|(x, signs)| x * signs[i]);
                    row[j] * signed.sum::<f64>()
                };
                x.iter().map(product).sum()
            })
        };
        self.sketches.push((0..x[0].len()).map(sketch).collect());
    }

    /// Of heads of 16 values, rotated in neighbouring pairs.
    fn rope(x: &mut [Vec<f64>]) {
        for (pos, row) in x.iter_mut().enumerate() {
            for head in row.chunks_exact_mut(16) {
                for (i, pair) in head.chunks_exact_mut(2).enumerate() {
                    let (sin, cos) = (pos as f64 * 10000f64.powf(-2.0 * i as f64 / 16.0)).sin_cos();
                    let (a, b) = (pair[0], pair[1]);
                    (pair[0], pair[1]) = (a * cos - b * sin, a * sin + b * cos);
                }
            }
        }
    }

    fn attend(q: &[Vec<f64>], k: &[Vec<f64>], v: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let mut out = vec![vec![0.0; 64]; q.len()];
        for (t, out) in out.iter_mut().enumerate() {
            for h in 0..4 {
                let own = &q[t][16 * h..16 * h + 16];
                let shared = 16 * (h / 2)..16 * (h / 2) + 16;
                let score = |k: &Vec<f64>| {
                    let dot: f64 = own.iter().zip(&k[shared.clone()]).map(|(a, b)| a * b).sum();
                    (dot / 4.0).exp()
                };
                let scores: Vec<f64> = k[..=t].iter().map(score).collect();
                let total: f64 = scores.iter().sum();
                for (score, v) in scores.iter().zip(v) {
                    for (o, v) in out[16 * h..].iter_mut().zip(&v[shared.clone()]) {
                        *o += score / total * v;
                    }
                }
            }
        }
        out
    }

    fn run(&mut self) {
        fn add(x: &mut [Vec<f64>], y: &[Vec<f64>]) {
            x.iter_mut().flatten().zip(y.iter().flatten()).for_each(|(x, y)| *x += y);
        }
        let embeddings = self.tensor("token_embd.weight");
        let row = |t: &u32| embeddings[64 * *t as usize..][..64].to_vec();
        let mut x: Vec<Vec<f64>> = TOKENS.iter().map(row).collect();
        for l in 0..2 {
            let name = |part: &str| format!("blk.{l}.{part}.weight");
            let input = self.norm(&name("attn_norm"), &x);
            self.meet(&input);
            let [mut q, mut k, v] =
                ["attn_q", "attn_k", "attn_v"].map(|part| self.times(&name(part), &input));
            Self::rope(&mut q);
            Self::rope(&mut k);
            let input = Self::attend(&q, &k, &v);
            self.meet(&input);
            add(&mut x, &self.times(&name("attn_output"), &input));
            let input = self.norm(&name("ffn_norm"), &x);
            self.meet(&input);
            let [mut gate, up] = ["ffn_gate", "ffn_up"].map(|part| self.times(&name(part), &input));
            for (gate, up) in gate.iter_mut().flatten().zip(up.iter().flatten()) {
                *gate = *gate / (1.0 + (-*gate).exp()) * up;
            }
            self.meet(&gate);
            add(&mut x, &self.times(&name("ffn_down"), &gate));
        }
        let input = self.norm("output_norm.weight", &x);
        self.meet(&input);
    }
}

#[test]
fn the_sums_are_those_of_a_forward_pass_that_is_written_again() {
    let engine = engine("llama", 2, None);
    let mut llama = Llama { file: engine.file().clone(), sums: Vec::new(), sketches: Vec::new() };
    llama.run();
    let got = collect(&engine, 7, true);
    assert_eq!(got.len(), llama.sums.len());
    for (got, want) in got.iter().zip(&llama.sums) {
        assert_eq!(got.tokens, TOKENS.len() as u64);
        assert_eq!(got.sums.len(), want.len());
        for (j, (a, b)) in got.sums.iter().zip(want).enumerate() {
            assert!((a / b - 1.0).abs() < 1e-4, "{:?}, column {j}: {a}, not {b}", got.tensors);
        }
    }
    for (got, want) in got.iter().zip(&llama.sketches) {
        let most = got.sums.iter().fold(0.0f64, |max, sum| max.max(*sum));
        let (got, want) = (got.sketch.as_flattened(), want.as_flattened());
        assert_eq!(got.len(), want.len());
        for (i, (a, b)) in got.iter().zip(want).enumerate() {
            assert!((f64::from(*a) - b).abs() < 1e-4 * most * 8.0, "value {i}: {a}, not {b}");
        }
    }
    let names: Vec<String> = got.into_iter().flat_map(|input| input.tensors).collect();
    let layer = |l: usize| {
        let parts = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];
        parts.map(|part| format!("blk.{l}.{part}.weight"))
    };
    let want = [layer(0).as_slice(), &layer(1), &["output.weight".to_string()]].concat();
    assert_eq!(names, want);
}

#[test]
fn threads_batches_and_levels_do_not_change_a_bit() {
    for name in ["gemma3", "qwen2-untied", "qwen3"] {
        for all in [false, true] {
            let want = collect(&engine(name, 1, Some("scalar")), 1, all);
            for (threads, batch) in [(1, 64), (2, 5), (3, 64), (2, 1)] {
                for level in kernel_levels() {
                    let got = collect(&engine(name, threads, Some(level)), batch, all);
                    assert_eq!(got, want, "{name}: {threads} threads, {batch} tokens, {level}");
                }
            }
        }
    }
}

#[test]
fn the_output_matrix_is_left_out_unless_it_is_asked_for() {
    // Its tensor is that of the embeddings where the file has no other.
    for (name, output) in [("qwen2", "token_embd.weight"), ("qwen2-untied", "output.weight")] {
        let last = |all: bool| collect(&engine(name, 2, None), 64, all).pop().unwrap().tensors;
        assert_eq!(last(false), ["blk.1.ffn_down.weight"]);
        assert_eq!(last(true), [output]);
    }
}

#[test]
fn collecting_does_not_change_the_logits() {
    let engine = engine("gemma3", 2, None);
    for batch in [5, 64] {
        let mut plain = session(&engine, batch);
        let mut collecting = session(&engine, batch);
        let options = ImatrixOptions { output: true, sketch: true, forget: true };
        collecting.collect_imatrix(options).unwrap();
        assert_eq!(plain.prefill(&TOKENS).unwrap(), collecting.prefill(&TOKENS).unwrap());
        assert_eq!(plain.decode(9).unwrap(), collecting.decode(9).unwrap());
        let sums = collecting.take_imatrix().unwrap();
        assert!(sums[0].tokens == TOKENS.len() as u64 + 1);
        assert_eq!(plain.decode(8).unwrap(), collecting.decode(8).unwrap());
    }
}

#[test]
fn the_rows_of_two_sessions_can_be_looked_at_side_by_side() {
    let engines = [engine("llama", 2, None), engine("qwen2", 2, None)];
    let [mut a, mut b] = [session(&engines[0], 20), session(&engines[1], 18)];
    let alone = |mut session: Session| {
        let mut all = Vec::new();
        session
            .prefill_all(&TOKENS, |_, row| {
                all.extend_from_slice(row);
                Ok(())
            })
            .unwrap();
        all
    };
    let want = [alone(session(&engines[0], 64)), alone(session(&engines[1], 64))];
    let mut got = [Vec::new(), Vec::new()];
    {
        let mut a = a.prefill_rows(&TOKENS).unwrap();
        let mut b = b.prefill_rows(&TOKENS).unwrap();
        loop {
            let a = a.next_rows().unwrap();
            let b = b.next_rows().unwrap();
            if let Some((pos, rows)) = a {
                assert_eq!(pos * 96, got[0].len());
                got[0].extend_from_slice(rows);
            }
            match b {
                Some((_, rows)) => got[1].extend_from_slice(rows),
                None if a.is_none() => break,
                None => {}
            }
        }
    }
    assert_eq!(got, want);
    assert_eq!(a.tokens(), TOKENS);
    // What nobody asked for to its end is not there.
    let before = b.tokens().len();
    let mut rows = b.prefill_rows(&[1, 2, 3]).unwrap();
    rows.next_rows().unwrap();
    assert_eq!(b.tokens().len(), before);
}
