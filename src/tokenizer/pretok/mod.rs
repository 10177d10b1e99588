//! How text is cut into words before byte pairs are merged, by the name that a file gives.
//!
//! Each entry of [`PRE_TOKENIZERS`] is the list of splits of one model's `tokenizer.json` as
//! data. They are walked by hand-written code that looks at every character a bounded number of
//! times, so that no text makes it slow; the tests compare each with its regular expression.
//!
//! Where llama.cpp approximates a model's expression because `std::regex` knows no Unicode
//! (`tekken`, `gpt-4o`, `tiny_aya`, `youtu`, `afmoe` and their relatives treat capitals or digits
//! differently there), the model's own expression is followed.

mod class;
mod steps;
mod structure;
mod words;

use class::{ASCII_DIGIT, ASCII_SYMBOL, L, N, W};
pub(crate) use class::{ASCII_PUNCT, CONTROL, MN, P, char_at, classes};
pub(crate) use structure::Regexes;
pub use structure::recognize_pre_tokenizer;

use steps::{Lead, Run, Set, Step, Threes};
use words::{Contraction, Letters, Numbers, Spaces, Tail, Words};

/// A named way to cut text, and what goes with the name.
pub(crate) struct PreTokenizer {
    names: &'static [&'static str],
    steps: &'static [Step],
    /// A word that is a token is that token, whatever the merges make of it.
    pub(crate) ignore_merges: bool,
    /// Whether a beginning-of-sequence token is added where the file does not say.
    pub(crate) add_bos: bool,
    /// The vocabulary holds text as it is, with U+2581 for a space and `<0x0A>` for stray bytes,
    /// instead of GPT-2's alphabet of bytes.
    pub(crate) raw: bool,
    /// Spaces are written as U+2581 before all else.
    pub(crate) escape_spaces: bool,
    /// A word of nothing but newlines that is a token is that token.
    pub(crate) newline_tokens: bool,
}

impl PreTokenizer {
    /// Calls `f` for every word of `text`; together they are the text.
    #[inline]
    pub(crate) fn split(&self, text: &[u8], f: &mut impl FnMut(&[u8])) {
        steps::split(self.steps, text, f);
    }

    /// The pre-tokenizer of a name.
    pub(crate) fn by_name(name: &str) -> Option<&'static PreTokenizer> {
        PRE_TOKENIZERS.iter().find(|p| p.names.contains(&name))
    }

    /// What a file has for a name if its patterns are those of its `tokenizer.huggingface.json`.
    pub(crate) const HUGGINGFACE: &str = "huggingface";

    /// What goes with patterns of a tokenizer.json.
    pub(crate) fn huggingface(ignore_merges: bool) -> &'static PreTokenizer {
        &HUGGINGFACE[usize::from(ignore_merges)]
    }

    /// All names, for an error that says what there is.
    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        PRE_TOKENIZERS.iter().flat_map(|p| p.names.iter().copied())
    }
}

const GPT2: Words = Words {
    contraction: Contraction::Lower,
    letters: Letters::Spaced,
    numbers: Numbers::Spaced,
    tail: Tail::None,
    spaces: Spaces::AllButLast,
};
const LLAMA3: Words = Words {
    contraction: Contraction::AnyCase,
    letters: Letters::Plain,
    numbers: Numbers::UpTo(3),
    tail: Tail::Newlines,
    spaces: Spaces::Lines,
};
const QWEN2: Words = Words { numbers: Numbers::UpTo(1), ..LLAMA3 };
const GPT4O: Words = Words {
    contraction: Contraction::None,
    letters: Letters::Cased { suffix: true, han_apart: false },
    numbers: Numbers::UpTo(3),
    tail: Tail::NewlinesAndSlashes,
    spaces: Spaces::Lines,
};

const DIGIT: Step = Step::Runs(&[Run::up_to(1, Set::Classes(N))]);
const THREE_DIGITS: Step = Step::Runs(&[Run::up_to(3, Set::Classes(N))]);
const NUMBER: Step = Step::Runs(&[Run::all(Set::Classes(N))]);
const THREE_ASCII_DIGITS: Step = Step::Runs(&[Run::exactly(3, Set::Classes(ASCII_DIGIT))]);
const NEWLINE: Step = Step::Runs(&[Run::up_to(1, Set::Also(0, &[(0x0a, 0x0a), (0x0d, 0x0d)]))]);
const CJK: Step = Step::Runs(&[Run::all(Set::Also(0, &[(0x3040, 0x30ff), (0x4e00, 0x9fa5)]))]);
const ASIAN: Step = Step::Runs(&[Run::all(Set::Also(0, &[(0x800, 0x9fa5), (0xac00, 0xd7ff)]))]);
const NOT_SENTENCE: Step = Step::Runs(&[Run::led(
    Lead::Space,
    Set::Not(
        W,
        &[
            (0x21, 0x21), // !
            (0x28, 0x29), // ( and )
            (0x2c, 0x2c), // ,
            (0x2e, 0x2e), // .
            (0x3f, 0x3f), // ?
            (0x7c, 0x7c), // |
            (0x60c, 0x60c),
            (0x6d4, 0x6d4),
            (0x964, 0x964),
            (0x2026, 0x2026),
            (0x3001, 0x3002),
            (0xff0c, 0xff0c),
        ],
    ),
)]);

/// Letters of the scripts with capitals, as DeepSeek LLM's tokenizer lists them.
const DEEPSEEK_LETTERS: &[(u32, u32)] = &[
    (0x41, 0x5a),
    (0x61, 0x7a),
    (0xb5, 0xb5),
    (0xc0, 0xd6),
    (0xd8, 0xf6),
    (0xf8, 0x1ba),
    (0x1bc, 0x1bf),
    (0x1c4, 0x293),
    (0x295, 0x2af),
    (0x370, 0x373),
    (0x376, 0x377),
    (0x37b, 0x37d),
    (0x37f, 0x37f),
    (0x386, 0x386),
    (0x388, 0x38a),
    (0x38c, 0x38c),
    (0x38e, 0x3a1),
    (0x3a3, 0x3f5),
    (0x3f7, 0x481),
    (0x48a, 0x52f),
    (0x531, 0x556),
    (0x10a0, 0x10c5),
    (0x13a0, 0x13f5),
    (0x13f8, 0x13fd),
    (0x1c90, 0x1cba),
    (0x1cbd, 0x1cbf),
    (0x1d00, 0x1d2b),
    (0x1d6b, 0x1d77),
    (0x1d79, 0x1d9a),
    (0x1e00, 0x1f15),
    (0x1f18, 0x1f1d),
    (0x1f20, 0x1f45),
    (0x1f48, 0x1f4d),
    (0x1f50, 0x1f57),
    (0x1f59, 0x1f59),
    (0x1f5b, 0x1f5b),
    (0x1f5d, 0x1f5d),
    (0x1f5f, 0x1f7d),
    (0x1f80, 0x1fb4),
    (0x1fb6, 0x1fbc),
    (0x1fbe, 0x1fbe),
    (0x1fc2, 0x1fc4),
    (0x1fc6, 0x1fcc),
    (0x1fd0, 0x1fd3),
    (0x1fd6, 0x1fdb),
    (0x1fe0, 0x1fec),
    (0x1ff2, 0x1ff4),
    (0x1ff6, 0x1ffc),
    (0x2102, 0x2102),
    (0x2107, 0x2107),
    (0x210a, 0x2113),
    (0x2115, 0x2115),
    (0x2119, 0x211d),
    (0x2124, 0x2124),
    (0x2126, 0x2126),
    (0x2128, 0x2128),
    (0x212a, 0x212d),
    (0x212f, 0x2134),
    (0x2139, 0x2139),
    (0x213c, 0x213f),
    (0x2145, 0x2149),
    (0x214e, 0x214e),
    (0x2183, 0x2184),
    (0x2c00, 0x2c7b),
    (0x2c7e, 0x2ce4),
    (0x2ceb, 0x2cee),
    (0x2cf2, 0x2cf3),
    (0xa640, 0xa66d),
    (0xa680, 0xa69b),
    (0xa722, 0xa76f),
    (0xa771, 0xa787),
    (0xa78b, 0xa78e),
    (0xab70, 0xabbf),
    (0xfb00, 0xfb06),
    (0xfb13, 0xfb17),
    (0xff21, 0xff3a),
    (0xff41, 0xff5a),
    (0x10400, 0x1044f),
    (0x104b0, 0x104d3),
    (0x104d8, 0x104fb),
    (0x10c80, 0x10cb2),
    (0x10cc0, 0x10cf2),
    (0x118a0, 0x118df),
    (0x1e900, 0x1e943),
];

const DEFAULT: PreTokenizer = PreTokenizer {
    names: &["default"],
    steps: &[
        Step::Runs(&[Run::all(Set::Also(
            P,
            &[
                (0x24, 0x24), // $
                (0x2b, 0x2b), // +
                (0x3c, 0x3e), // < = >
                (0x5e, 0x5e), // ^
                (0x7c, 0x7c), // |
                (0x7e, 0x7e), // ~
            ],
        ))]),
        Step::Words(&GPT2),
        NUMBER,
        THREE_ASCII_DIGITS,
    ],
    ignore_merges: false,
    add_bos: false,
    raw: false,
    escape_spaces: false,
    newline_tokens: false,
};

/// What goes with the patterns of a tokenizer.json, without and with `ignore_merges`. Its name stands
/// for no splitter, so it is not in the list.
static HUGGINGFACE: [PreTokenizer; 2] = [
    PreTokenizer { names: &[PreTokenizer::HUGGINGFACE], steps: &[], ..DEFAULT },
    PreTokenizer {
        names: &[PreTokenizer::HUGGINGFACE],
        steps: &[],
        ignore_merges: true,
        ..DEFAULT
    },
];

/// Every pre-tokenizer that llama.cpp names. The first is what a file without
/// `tokenizer.ggml.pre` gets.
static PRE_TOKENIZERS: &[PreTokenizer] = &[
    DEFAULT,
    PreTokenizer {
        names: &[
            "gpt-2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "granite-docling",
            "jina-es",
            "jina-de",
            "jina-v1-en",
            "jina-v2-es",
            "jina-v2-de",
            "jina-v2-code",
            "roberta-bpe",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "exaone4",
        ],
        steps: &[Step::Words(&GPT2)],
        ..DEFAULT
    },
    PreTokenizer {
        names: &[
            "smollm",
            "starcoder",
            "refact",
            "command-r",
            "codeshell",
            "exaone",
            "minerva-7b",
            "mellum2",
        ],
        steps: &[DIGIT, Step::Words(&GPT2)],
        ..DEFAULT
    },
    PreTokenizer {
        names: &[
            "llama3",
            "llama-v3",
            "llama-bpe",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        steps: &[Step::Words(&LLAMA3)],
        ignore_merges: true,
        add_bos: true,
        ..DEFAULT
    },
    PreTokenizer {
        names: &["dbrx", "smaug-bpe", "chatglm-bpe"],
        steps: &[Step::Words(&LLAMA3)],
        ..DEFAULT
    },
    PreTokenizer {
        names: &["glm4", "glm5"],
        steps: &[Step::Words(&LLAMA3)],
        ignore_merges: true,
        ..DEFAULT
    },
    PreTokenizer {
        names: &["jais-2"],
        steps: &[Step::Words(&Words { spaces: Spaces::LinesThenPowers, ..LLAMA3 })],
        ..DEFAULT
    },
    PreTokenizer {
        names: &["minicpm5"],
        steps: &[
            THREE_DIGITS,
            Step::Words(&Words { numbers: Numbers::UpTo(usize::MAX), ..LLAMA3 }),
        ],
        ignore_merges: true,
        ..DEFAULT
    },
    PreTokenizer {
        names: &[
            "qwen2",
            "deepseek-r1-qwen",
            "kormo",
            "f2llmv2",
            "megrez",
            "stablelm2",
            "hunyuan",
            "solar-open",
            "grok-2",
        ],
        steps: &[Step::Words(&QWEN2)],
        ..DEFAULT
    },
    PreTokenizer {
        names: &["qwen35"],
        steps: &[Step::Words(&Words { letters: Letters::Marked, ..QWEN2 })],
        ..DEFAULT
    },
    // `\s*[\r\n]` ends where `\s*[\r\n]+` does: the white space before may hold newlines.
    PreTokenizer {
        names: &["bailingmoe", "bailingmoe2", "llada-moe"],
        steps: &[Step::Words(&QWEN2)],
        ..DEFAULT
    },
    PreTokenizer {
        names: &["ufakzeka"],
        steps: &[Step::Words(&Words { contraction: Contraction::None, ..QWEN2 })],
        ..DEFAULT
    },
    PreTokenizer {
        names: &["seed-coder"],
        steps: &[Step::Words(&Words { tail: Tail::None, ..QWEN2 })],
        ..DEFAULT
    },
    PreTokenizer { names: &["laguna"], steps: &[Step::Newlines, Step::Words(&QWEN2)], ..DEFAULT },
    PreTokenizer {
        names: &["exaone-moe"],
        steps: &[Step::Words(&Words {
            letters: Letters::Phrase,
            tail: Tail::OneNewlineOrSlash,
            ..QWEN2
        })],
        ..DEFAULT
    },
    PreTokenizer {
        names: &["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"],
        steps: &[Step::Words(&GPT4O)],
        ..DEFAULT
    },
    PreTokenizer {
        names: &["granite-embed-multi-97m"],
        steps: &[Step::Words(&GPT4O)],
        ignore_merges: true,
        ..DEFAULT
    },
    PreTokenizer {
        names: &["tiny_aya", "cohere2moe"],
        steps: &[Step::Threes(Threes::BeforeBoundary), Step::Words(&GPT4O)],
        ..DEFAULT
    },
    PreTokenizer {
        names: &["tekken"],
        steps: &[Step::Words(&Words {
            letters: Letters::Cased { suffix: false, han_apart: false },
            numbers: Numbers::UpTo(1),
            ..GPT4O
        })],
        ignore_merges: true,
        add_bos: true,
        ..DEFAULT
    },
    PreTokenizer {
        names: &["kimi-k2"],
        steps: &[Step::Words(&Words {
            letters: Letters::Cased { suffix: true, han_apart: true },
            tail: Tail::Newlines,
            ..GPT4O
        })],
        ..DEFAULT
    },
    PreTokenizer {
        names: &["youtu"],
        steps: &[
            Step::Runs(&[
                Run::all(Set::Also(0, &[(0x3131, 0x318e), (0xac00, 0xd7a3)])),
                Run::all(Set::Also(
                    0,
                    &[
                        (0x2014, 0x2014),
                        (0x2018, 0x2019),
                        (0x201c, 0x201d),
                        (0x2026, 0x2026),
                        (0x3001, 0x303f),
                        (0xfe30, 0xfe4f),
                        (0xff01, 0xff01),
                        (0xff0c, 0xff0c),
                        (0xff1a, 0xff1b),
                    ],
                )),
                Run::all(Set::Also(0, &[(0x3105, 0x312f)])),
                Run::all(Set::Also(0, &[(0x3040, 0x30ff), (0x4e00, 0x9fa5)])),
            ]),
            Step::Words(&Words { numbers: Numbers::UpTo(1), ..GPT4O }),
        ],
        ignore_merges: true,
        ..DEFAULT
    },
    PreTokenizer {
        names: &["deepseek-llm"],
        steps: &[
            NEWLINE,
            Step::Runs(&[Run::led(Lead::White, Set::Also(0, DEEPSEEK_LETTERS))]),
            Step::Runs(&[Run::led(
                Lead::White,
                Set::Also(
                    0,
                    &[
                        (0x21, 0x2f),
                        (0x3a, 0x7e),
                        (0x2018, 0x201f),
                        (0x3000, 0x3002),
                        (0xff01, 0xff0f),
                        (0xff1a, 0xff5e),
                    ],
                ),
            )]),
            Step::TrailingSpace,
            ASIAN,
            NUMBER,
        ],
        ..DEFAULT
    },
    PreTokenizer {
        names: &["deepseek-coder"],
        steps: &[
            NEWLINE,
            Step::Runs(&[Run::led(Lead::White, Set::Classes(L))]),
            Step::Runs(&[Run::led(Lead::White, Set::Classes(P))]),
            ASIAN,
            DIGIT,
        ],
        ..DEFAULT
    },
    PreTokenizer {
        names: &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        steps: &[THREE_DIGITS, CJK, Step::DeepSeek(false)],
        ..DEFAULT
    },
    PreTokenizer {
        names: &["spark2_5"],
        steps: &[THREE_DIGITS, CJK, Step::DeepSeek(true), DIGIT],
        ..DEFAULT
    },
    PreTokenizer {
        names: &["afmoe"],
        steps: &[
            Step::Threes(Threes::Numbers),
            Step::Runs(&[Run::all(Set::Also(
                0,
                &[
                    (0xe40, 0xe7f),
                    (0xe80, 0xeff),
                    (0x1000, 0x109f),
                    (0x1100, 0x11ff),
                    (0x1780, 0x17ff),
                    (0x2f00, 0x2fdf),
                    (0x3040, 0x309f),
                    (0x30a0, 0x30ff),
                    (0x3400, 0x4dbf),
                    (0x4e00, 0x9fff),
                    (0xa9e0, 0xa9ff),
                    (0xaa60, 0xaa7f),
                    (0xac00, 0xd7af),
                    (0xf900, 0xfaff),
                    (0xff65, 0xff9f),
                ],
            ))]),
            Step::DeepSeek(false),
        ],
        ..DEFAULT
    },
    PreTokenizer {
        names: &["falcon"],
        steps: &[
            Step::Runs(&[Run::all(Set::Classes(P | ASCII_SYMBOL))]),
            Step::Words(&GPT2),
            THREE_ASCII_DIGITS,
        ],
        ..DEFAULT
    },
    PreTokenizer {
        names: &["poro-chat", "bloom", "gpt3-finnish"],
        steps: &[NOT_SENTENCE],
        ..DEFAULT
    },
    PreTokenizer { names: &["viking"], steps: &[NOT_SENTENCE, DIGIT], ..DEFAULT },
    PreTokenizer {
        names: &["chameleon"],
        steps: &[
            Step::Sentinel,
            Step::Image,
            Step::Indents,
            DIGIT,
            Step::Runs(&[Run::up_to(1, Set::Classes(P | ASCII_PUNCT))]),
            Step::Words(&GPT2),
        ],
        add_bos: true,
        ..DEFAULT
    },
    PreTokenizer { names: &["superbpe"], steps: &[NUMBER, Step::Threes(Threes::Cuts)], ..DEFAULT },
    PreTokenizer {
        names: &["gemma4", "granite-embed-multi-311m"],
        steps: &[Step::Newlines],
        add_bos: true,
        raw: true,
        escape_spaces: true,
        newline_tokens: true,
        ..DEFAULT
    },
    PreTokenizer {
        names: &["sarvam-moe"],
        steps: &[Step::Newlines],
        raw: true,
        escape_spaces: true,
        ..DEFAULT
    },
    PreTokenizer {
        names: &["whitespace"],
        steps: &[Step::Runs(&[Run::all(Set::Not(W, &[]))])],
        raw: true,
        ..DEFAULT
    },
];

#[cfg(test)]
mod tests;
