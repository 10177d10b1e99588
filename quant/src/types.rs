//! The ggml tensor types: identity, sizes and the activation type that each is multiplied with.

/// How the activations are stored that a weight type is multiplied with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// As f32: weights that are floats themselves.
    F32,
    /// int8 in blocks of 32 with an f32 scale.
    Q8,
    /// The type holds no weights (integers, f64, or a type used for activations only).
    None,
}

/// What is constant for a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeInfo {
    /// ggml's name in upper case, for example `Q4_K`.
    pub name: &'static str,
    /// Elements in a block.
    pub block_len: usize,
    /// Bytes in a block.
    pub block_bytes: usize,
    /// What the activations are stored as.
    pub act: Act,
}

/// The one list of types. Calls `$then!` with all rows in three groups, preceded by whatever stands
/// in the brackets:
///
/// - `int`: weights with integer codes, whose block implements [`IntBlock`](crate::formats::IntBlock);
/// - `plain`: other types with values, whose block implements [`Block`](crate::formats::Block);
/// - `none`: types that hold no values to compute with.
///
/// A row is `Variant = number in the file, name, elements in a block, bytes in a block, what the
/// activations are stored as, the block`.
#[doc(hidden)]
#[macro_export]
macro_rules! formats {
    ($then:path [$($args:tt)*]) => {
        $then! { [$($args)*]
            int {
                /// 4 bits, scale.
                Q4_0 = 2, "Q4_0", 32, 18, Q8, BlockQ4_0;
                /// 4 bits, scale and minimum.
                Q4_1 = 3, "Q4_1", 32, 20, Q8, BlockQ4_1;
                /// 5 bits, scale.
                Q5_0 = 6, "Q5_0", 32, 22, Q8, BlockQ5_0;
                /// 5 bits, scale and minimum.
                Q5_1 = 7, "Q5_1", 32, 24, Q8, BlockQ5_1;
                /// 8 bits, scale.
                Q8_0 = 8, "Q8_0", 32, 34, Q8, BlockQ8_0;
                /// 2 bits, 4-bit scales and minimums per 16.
                Q2_K = 10, "Q2_K", 256, 84, Q8, BlockQ2K;
                /// 3 bits, 6-bit scales per 16.
                Q3_K = 11, "Q3_K", 256, 110, Q8, BlockQ3K;
                /// 4 bits, 6-bit scales and minimums per 32.
                Q4_K = 12, "Q4_K", 256, 144, Q8, BlockQ4K;
                /// 5 bits, 6-bit scales and minimums per 32.
                Q5_K = 13, "Q5_K", 256, 176, Q8, BlockQ5K;
                /// 6 bits, 8-bit scales per 16.
                Q6_K = 14, "Q6_K", 256, 210, Q8, BlockQ6K;
                /// 2.06 bits, grid of 8.
                IQ2_XXS = 16, "IQ2_XXS", 256, 66, Q8, BlockIQ2XXS;
                /// 2.31 bits, grid of 8.
                IQ2_XS = 17, "IQ2_XS", 256, 74, Q8, BlockIQ2XS;
                /// 3.06 bits, grid of 4.
                IQ3_XXS = 18, "IQ3_XXS", 256, 98, Q8, BlockIQ3XXS;
                /// 1.56 bits, ternary grid of 8.
                IQ1_S = 19, "IQ1_S", 256, 50, Q8, BlockIQ1S;
                /// 4 bits, non-linear table.
                IQ4_NL = 20, "IQ4_NL", 32, 18, Q8, BlockIQ4NL;
                /// 3.44 bits, grid of 4.
                IQ3_S = 21, "IQ3_S", 256, 110, Q8, BlockIQ3S;
                /// 2.56 bits, grid of 8.
                IQ2_S = 22, "IQ2_S", 256, 82, Q8, BlockIQ2S;
                /// 4 bits, non-linear table, 6-bit scales per 32.
                IQ4_XS = 23, "IQ4_XS", 256, 136, Q8, BlockIQ4XS;
                /// 1.75 bits, ternary grid of 8.
                IQ1_M = 29, "IQ1_M", 256, 56, Q8, BlockIQ1M;
                /// Ternary, 1.69 bits.
                TQ1_0 = 34, "TQ1_0", 256, 54, Q8, BlockTQ1_0;
                /// Ternary, 2.06 bits.
                TQ2_0 = 35, "TQ2_0", 256, 66, Q8, BlockTQ2_0;
                /// 4-bit floats with a power-of-two scale per 32.
                MXFP4 = 39, "MXFP4", 32, 17, Q8, BlockMXFP4;
                /// 4-bit floats with an 8-bit float scale per 16.
                NVFP4 = 40, "NVFP4", 64, 36, Q8, BlockNVFP4;
                /// Signs with a scale per 128.
                Q1_0 = 41, "Q1_0", 128, 18, Q8, BlockQ1_0;
                /// 2 bits with a scale per 64.
                Q2_0 = 42, "Q2_0", 64, 18, Q8, BlockQ2_0;
            }
            plain {
                /// IEEE single.
                F32 = 0, "F32", 1, 4, F32, BlockF32;
                /// IEEE half.
                F16 = 1, "F16", 1, 2, F32, BlockF16;
                /// 8 bits with a sum: activations only.
                Q8_1 = 9, "Q8_1", 32, 36, None, BlockQ8_1;
                /// 8 bits with sums: activations only.
                Q8_K = 15, "Q8_K", 256, 292, None, BlockQ8K;
                /// The upper half of a single.
                BF16 = 30, "BF16", 1, 2, F32, BlockBF16;
            }
            none {
                /// Integers.
                I8 = 24, "I8", 1, 1, None;
                /// Integers.
                I16 = 25, "I16", 1, 2, None;
                /// Integers.
                I32 = 26, "I32", 1, 4, None;
                /// Integers.
                I64 = 27, "I64", 1, 8, None;
                /// IEEE double.
                F64 = 28, "F64", 1, 8, None;
            }
        }
    };
}

/// Calls `$then! { [args] (Q4_0, BlockQ4_0) (Q4_1, BlockQ4_1) ... }` for all types that have an
/// [`IntBlock`](crate::formats::IntBlock): the name of the [`GgmlType`] and of the block in
/// [`formats`](crate::formats). Tables, tests and benchmarks are made from it.
#[macro_export]
macro_rules! for_each_format {
    ($then:path [$($args:tt)*]) => {
        $crate::formats! { $crate::__int_formats [$then [$($args)*]] }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __int_formats {
    ([$then:path [$($args:tt)*]]
     int { $( $(#[$doc:meta])* $variant:ident = $id:literal, $name:literal, $len:literal,
              $bytes:literal, $act:ident, $block:ident; )* }
     $($rest:tt)*
    ) => {
        $then! { [$($args)*] $( ($variant, $block) )* }
    };
}

macro_rules! define_types {
    ([] $( $group:ident { $( $(#[$doc:meta])* $variant:ident = $id:literal, $name:literal,
        $len:literal, $bytes:literal, $act:ident $(, $block:ident)?; )* } )*) => {
        /// A ggml tensor type. The discriminant is the number that GGUF files store.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        #[allow(non_camel_case_types)]
        pub enum GgmlType { $( $( $(#[$doc])* $variant = $id, )* )* }

        impl GgmlType {
            /// Every type.
            pub const ALL: &'static [GgmlType] = &[ $( $( GgmlType::$variant, )* )* ];

            /// Sizes and name of this type.
            pub const fn info(self) -> TypeInfo {
                match self {
                    $( $( GgmlType::$variant => TypeInfo {
                        name: $name, block_len: $len, block_bytes: $bytes, act: Act::$act,
                    }, )* )*
                }
            }
        }
    };
}

formats! { define_types [] }

impl GgmlType {
    /// One more than the largest number, for tables indexed by type.
    pub const COUNT: usize = {
        let mut count = 0;
        let mut i = 0;
        while i < Self::ALL.len() {
            if Self::ALL[i] as usize >= count {
                count = Self::ALL[i] as usize + 1;
            }
            i += 1;
        }
        count
    };

    /// The type with this number, if there is one (removed types have none).
    pub fn from_u32(id: u32) -> Option<GgmlType> {
        Self::ALL.iter().copied().find(|t| *t as u32 == id)
    }

    /// The type with this name, whatever its case (`q4_k`, `Q4_K`).
    pub fn from_name(name: &str) -> Option<GgmlType> {
        Self::ALL.iter().copied().find(|t| t.name().eq_ignore_ascii_case(name))
    }

    /// ggml's name in upper case.
    pub const fn name(self) -> &'static str {
        self.info().name
    }

    /// Elements in a block.
    pub const fn block_len(self) -> usize {
        self.info().block_len
    }

    /// Bytes in a block.
    pub const fn block_bytes(self) -> usize {
        self.info().block_bytes
    }

    /// Bytes of a row of `cols` elements; `None` where `cols` is not whole blocks or the size
    /// overflows.
    pub const fn row_bytes(self, cols: usize) -> Option<usize> {
        let info = self.info();
        if !cols.is_multiple_of(info.block_len) {
            return None;
        }
        (cols / info.block_len).checked_mul(info.block_bytes)
    }
}

impl std::fmt::Display for GgmlType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
