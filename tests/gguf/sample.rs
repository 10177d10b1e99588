//! A small file with everything that the format has, and a writer of raw bytes that lies on demand.

use siskin::GgmlType;
use siskin::gguf::{Builder, ByteOrder, Bytes};

/// Bytes of a file, written field by field with no regard to sense.
#[derive(Clone, Default)]
pub struct Raw(pub Vec<u8>);

impl Raw {
    /// The head of a little-endian file of version 3.
    pub fn head(n_tensors: u64, n_pairs: u64) -> Raw {
        Raw(b"GGUF".to_vec()).u32(3).u64(n_tensors).u64(n_pairs)
    }

    pub fn u32(mut self, x: u32) -> Raw {
        self.0.extend(x.to_le_bytes());
        self
    }

    pub fn u64(mut self, x: u64) -> Raw {
        self.0.extend(x.to_le_bytes());
        self
    }

    pub fn bytes(mut self, x: &[u8]) -> Raw {
        self.0.extend(x);
        self
    }

    pub fn string(self, x: &[u8]) -> Raw {
        self.u64(x.len() as u64).bytes(x)
    }

    /// A key with a `u32`.
    pub fn pair(self, key: &str, x: u32) -> Raw {
        self.string(key.as_bytes()).u32(4).u32(x)
    }

    /// A tensor's info.
    pub fn tensor(self, name: &str, shape: &[u64], ty: u32, offset: u64) -> Raw {
        let raw = self.string(name.as_bytes()).u32(shape.len() as u32);
        shape.iter().fold(raw, |raw, n| raw.u64(*n)).u32(ty).u64(offset)
    }

    /// Zeros up to a multiple of `align`, then `n` more.
    pub fn data(mut self, align: usize, n: usize) -> Raw {
        self.0.resize(self.0.len().next_multiple_of(align) + n, 0);
        self
    }
}

/// What a small model has: a vocabulary, merges, scores, blocks of several types; and what is rare:
/// every value type, nested arrays, an odd alignment.
pub fn realistic(version: u32, order: ByteOrder, n_tokens: usize) -> Vec<u8> {
    let mut b = Builder::with_format(version, order).expect("2 or 3");
    b.put("general.architecture", "llama").expect("a key");
    b.put("general.name", "Tiny model ünïcode").expect("a key");
    b.alignment(64).expect("a power of two");
    b.put("llama.block_count", &2u32).expect("a key");
    b.put("llama.rope.freq_base", &10000f32).expect("a key");
    b.put("test.u8", &7u8).expect("a key");
    b.put("test.i8", &-7i8).expect("a key");
    b.put("test.u16", &700u16).expect("a key");
    b.put("test.i16", &-700i16).expect("a key");
    b.put("test.i32", &-70_000i32).expect("a key");
    b.put("test.u64", &(1u64 << 40)).expect("a key");
    b.put("test.i64", &-(1i64 << 40)).expect("a key");
    b.put("test.f64", &1.5f64).expect("a key");
    b.put("test.bool", &true).expect("a key");
    b.put("test.not_utf8", &Bytes(b"\xff\xfe\x00")).expect("a key");
    b.put("test.empty_string", "").expect("a key");
    b.put("test.nested", &vec![vec![vec!["a", "bc"], vec![]], vec![vec!["def"]]]).expect("a key");
    b.put("test.empty_array", &Vec::<String>::new()).expect("a key");
    b.put("test.pattern", &[true, false, true][..]).expect("a key");
    let tokens: Vec<String> = (0..n_tokens).map(|i| format!("tok{}", i * i)).collect();
    let types: Vec<i32> = (0..n_tokens as i32).map(|i| i % 6).collect();
    let scores: Vec<f32> = (0..n_tokens).map(|i| -(i as f32)).collect();
    let merges: Vec<String> = tokens.windows(2).map(|w| w.join(" ")).collect();
    b.put("tokenizer.ggml.model", "gpt2").expect("a key");
    b.put("tokenizer.ggml.tokens", &tokens).expect("a key");
    b.put("tokenizer.ggml.token_type", &types).expect("a key");
    b.put("tokenizer.ggml.scores", &scores).expect("a key");
    b.put("tokenizer.ggml.merges", &merges).expect("a key");
    b.put("tokenizer.chat_template", "{% for m in messages %}{{ m.content }}{% endfor %}")
        .expect("a key");
    let types = [GgmlType::Q4_K, GgmlType::Q8_0, GgmlType::F32, GgmlType::BF16, GgmlType::Q6_K];
    for (i, ty) in types.iter().cycle().take(12).enumerate() {
        b.tensor(&format!("blk.{}.{i}.weight", i / 6), *ty, &[256, 1 + i as u64 % 3])
            .expect("a tensor");
    }
    let mut writer = b.start(Vec::new()).expect("memory");
    let mut n = 0u8;
    while let Some(name) = writer.next_tensor() {
        let name = name.to_string();
        while writer.next_tensor() == Some(&name) {
            n = n.wrapping_add(1);
            writer.write(&[n, n.wrapping_mul(3)]).expect("an even number of bytes");
        }
    }
    writer.finish().expect("memory")
}
