//! What the integer kernels need of an instruction set.
//!
//! There is one shape of register: [`Simd::ROWS`] rows of 4 bytes, a lane of 32 bits for each row.
//! Weights are brought into it as they lie in the file, packed ([`Simd::gather_words`]), and are
//! unpacked there by shifts and masks; a dot product with 4 activations, which are the same for all
//! rows, then gives a sum for each row that needs no reduction. That is fewer instructions than one
//! register for 32 codes of a row and a joint reduction of 16 rows, which this replaced (1.5 times as
//! fast for one column with AVX-512), and serves panels too. A lane's result does not depend on how
//! many there are, so each level has as many rows as a register has lanes.
//!
//! Registers of 4 lanes are where it is otherwise: as many rows fill 4 registers with 16 codes of one
//! row each, as they are read ([`Simd::load_codes`]), and their sums take fewer instructions than
//! bringing the codes into lanes. What unpacks codes treats all bytes alike, and does not see the
//! difference.

#![allow(clippy::missing_safety_doc, reason = "the trait's Safety section covers its methods")]

use crate::formats::signs;
use crate::lanes::Prefetch;

/// Words of 4 codes in 32 of them.
pub const WORDS: usize = 8;
/// Rows of the widest level.
pub const MAX_ROWS: usize = 16;

/// Where the rows of a register are: equally far apart, so that a kernel needs few addresses. (As an
/// array of pointers they did not fit the general registers, and every load of weights came with
/// one of its address. As one address and a stride, rows 3, 5 and so on needed a register each with
/// that multiple of the stride.)
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// Every fourth row.
    fourth: [*const u8; MAX_ROWS / 4],
    stride: usize,
    preceded: bool,
}

impl Rows {
    /// Rows `stride` bytes apart, the first at `base`.
    #[inline(always)]
    pub fn new(base: *const u8, stride: usize) -> Rows {
        let fourth = std::array::from_fn(|i| base.wrapping_add(4 * i * stride));
        Rows { fourth, stride, preceded: false }
    }

    /// The same places; `preceded` promises that the 16 bytes before each may be read.
    #[inline(always)]
    pub fn with_preceded(self, preceded: bool) -> Rows {
        Rows { preceded, ..self }
    }

    /// Whether the 16 bytes before each place may be read.
    #[inline(always)]
    pub fn preceded(self) -> bool {
        self.preceded
    }

    /// The same places, of which the compiler does not know how they came about, where the level has
    /// [`here`](Prefetch::here): it computes the address of each row ahead of a loop else, and then keeps most
    /// of them on the stack.
    #[inline(always)]
    pub fn here<S: Prefetch>(self) -> Rows {
        let mut fourth = self.fourth;
        for p in &mut fourth {
            *p = S::here(*p);
        }
        Rows { fourth, ..self }
    }

    /// The address of row `r`.
    #[inline(always)]
    pub fn row(self, r: usize) -> *const u8 {
        self.fourth[r / 4].wrapping_add(r % 4 * self.stride)
    }

    /// Places `bytes` further on in each row.
    #[inline(always)]
    pub fn skip(self, bytes: usize) -> Rows {
        Rows { fourth: self.fourth.map(|row| row.wrapping_add(bytes)), ..self }
    }
}

/// Integer operations of an instruction set, and the floating-point ones that go with them.
///
/// # Safety
/// Call the methods only where the CPU is known to have the level's instructions. Pointers must be
/// valid for as many bytes as the type read or written has; they need no alignment unless a method
/// says so.
pub unsafe trait Simd: Prefetch {
    /// Integers of 32 bits, or 4 bytes; a lane for each row.
    type I: Copy;
    /// Floats, a lane for each row.
    type F: Copy;

    /// Lanes of a register: 4, 8 or 16.
    const ROWS: usize;
    /// [`dots`](Self::dots) takes codes without sign only: 128 is added to signed ones.
    const UNSIGNED: bool;
    /// [`store_panel`](Self::store_panel) takes from codes what stands for 0, so that nothing is to be
    /// taken from their products.
    const CENTRED: bool = false;
    /// Columns that are multiplied at once, at the most, be they few or many: 4 or 8.
    const COLUMNS: usize;
    /// Registers of rows that a panel has where there are as many, which are multiplied with 4 columns at
    /// once; 1, with [`COLUMNS`](Self::COLUMNS) of them, where registers are too few.
    const TALL: usize = 1;
    /// [`gather_around`](Self::gather_around) is faster than loads of the parts.
    const AROUND: bool = false;

    /// `x` in every lane.
    unsafe fn splat(x: f32) -> Self::F;
    /// Reads a lane for each row.
    unsafe fn load(p: *const f32) -> Self::F;
    /// Writes a lane for each row.
    unsafe fn store(p: *mut f32, x: Self::F);
    /// `a * b`
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `x` in every lane.
    unsafe fn splat_i(x: i32) -> Self::I;
    /// Reads a lane for each row.
    unsafe fn load_i(p: *const i32) -> Self::I;
    /// Writes a lane for each row.
    unsafe fn store_i(p: *mut i32, x: Self::I);
    /// `a + b`
    unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I;
    /// `a - b`
    unsafe fn sub_i(a: Self::I, b: Self::I) -> Self::I;
    /// `a * b`
    unsafe fn mul_i(a: Self::I, b: Self::I) -> Self::I;
    /// Bitwise and.
    unsafe fn and_i(a: Self::I, b: Self::I) -> Self::I;
    /// Bitwise exclusive or.
    unsafe fn xor_i(a: Self::I, b: Self::I) -> Self::I;
    /// Bitwise or.
    unsafe fn or_i(a: Self::I, b: Self::I) -> Self::I;
    /// Shifts to the right by `n` bits, filling with zeros.
    unsafe fn shr_i(a: Self::I, n: i32) -> Self::I;
    /// Shifts to the left by `n` bits.
    unsafe fn shl_i(a: Self::I, n: i32) -> Self::I;
    /// Bits 24 to 31, as a signed byte.
    unsafe fn top_byte(a: Self::I) -> Self::I;
    /// `table[b]` for each byte, all below 16.
    unsafe fn lookup(table: &[i8; 16], b: Self::I) -> Self::I;
    /// As floats, rounded half to even.
    unsafe fn to_f32(a: Self::I) -> Self::F;
    /// The half-precision values in the low 16 bits.
    unsafe fn low_f16(a: Self::I) -> Self::F;
    /// The four words of 32 bits at `offset` bytes of each row: word `i` of all is `[i]`.
    unsafe fn gather_words(rows: Rows, offset: usize) -> [Self::I; 4];
    /// The word of 32 bits at `offset` bytes of each row.
    unsafe fn gather_word(rows: Rows, offset: usize) -> Self::I;

    /// 16 bytes of codes at `offset` of each row, as [`dots`](Self::dots) takes them: as
    /// [`gather_words`](Self::gather_words) has them, or a register for each row.
    #[inline(always)]
    unsafe fn load_codes(rows: Rows, offset: usize) -> [Self::I; 4] {
        // SAFETY: the caller's promise.
        unsafe { Self::gather_words(rows, offset) }
    }
    /// Bits `at..8` of each byte, as its lowest; `at` is 1 to 7.
    #[inline(always)]
    unsafe fn high_bits(a: Self::I, at: i32) -> Self::I {
        // SAFETY: the caller's promise.
        unsafe { Self::and_i(Self::shr_i(a, at), Self::splat_i(0x0101_0101 * (0xff >> at))) }
    }
    /// The two words of 32 bits at `offset` bytes of each row.
    #[inline(always)]
    unsafe fn gather_two(rows: Rows, offset: usize) -> [Self::I; 2] {
        // SAFETY: the caller's promise.
        unsafe { [Self::gather_word(rows, offset), Self::gather_word(rows, offset + 4)] }
    }
    /// The word of 32 bits before `offset` bytes of each row, and the 16 bytes of codes there as
    /// [`load_codes`](Self::load_codes) has them. The 16 bytes before `offset` may be read.
    #[inline(always)]
    unsafe fn gather_around(rows: Rows, offset: usize) -> (Self::I, [Self::I; 4]) {
        let before = rows.skip(4usize.wrapping_neg());
        // SAFETY: the caller's promise.
        unsafe { (Self::gather_word(before, offset), Self::load_codes(rows, offset)) }
    }
    /// 32 codes for the bits of the 4 bytes of each row: 2 for a bit that is set, else 0.
    #[inline(always)]
    unsafe fn load_bits(rows: Rows) -> [Self::I; WORDS] {
        // SAFETY: the caller's promise.
        unsafe {
            let bits = Self::gather_word(rows, 0);
            let mut codes = [bits; WORDS];
            for (i, code) in codes.iter_mut().enumerate() {
                let four = Self::shr_i(bits, 4 * i as i32);
                let four = Self::and_i(four, Self::splat_i(15));
                let two = Self::or_i(Self::shl_i(four, 1), Self::shl_i(four, 8));
                let four = Self::or_i(Self::shl_i(four, 15), Self::shl_i(four, 22));
                *code = Self::and_i(Self::or_i(two, four), Self::splat_i(0x0202_0202));
            }
            codes
        }
    }
    /// 32 codes of 2 bits, from the low bits up of the 8 bytes of each row.
    #[inline(always)]
    unsafe fn load_pairs(rows: Rows) -> [Self::I; WORDS] {
        // SAFETY: the caller's promise.
        unsafe {
            let words = Self::gather_two(rows, 0);
            let mut codes = [words[0]; WORDS];
            for (i, code) in codes.iter_mut().enumerate() {
                let byte = Self::shr_i(words[i / 4], 8 * (i % 4) as i32);
                let byte = Self::and_i(byte, Self::splat_i(255));
                let two = Self::or_i(byte, Self::shl_i(byte, 6));
                let four = Self::or_i(Self::shl_i(byte, 12), Self::shl_i(byte, 18));
                *code = Self::and_i(Self::or_i(two, four), Self::splat_i(0x0303_0303));
            }
            codes
        }
    }
    /// 16 codes of 4 bits: the low halves of the 8 bytes of each row, then the high ones. As
    /// [`load_codes`](Self::load_codes) lays them out.
    #[inline(always)]
    unsafe fn load_nibbles(rows: Rows) -> [Self::I; 4] {
        // SAFETY: the caller's promise.
        unsafe {
            let [a, b] = Self::gather_two(rows, 0);
            let low = Self::splat_i(0x0f0f_0f0f);
            let (c, d) = (Self::high_bits(a, 4), Self::high_bits(b, 4));
            [Self::and_i(a, low), Self::and_i(b, low), c, d]
        }
    }
    /// Codes of 4 bits in bytes, with bit `i` of the word of 32 bits at `offset` bytes of each row above
    /// those of the row's code `i`. `offset` is 2 or 4; the first 8 bytes of each row may be read.
    unsafe fn add_fifth_bits(low: [Self::I; WORDS], rows: Rows, offset: usize) -> [Self::I; WORDS];
    /// The products of `w`, which are 16 codes of each row or 32, with as many activations, which are
    /// signed and never -128. `signed` says whether the codes are; those without sign are `top` at
    /// the most.
    unsafe fn dots<const N: usize>(
        w: &[Self::I; N],
        a: *const u8,
        signed: bool,
        top: i32,
    ) -> Self::I;

    /// Signs of 8 times 32 codes, 7 bits of each 8 of them in the lower bits of the words: a byte for
    /// each 8 codes, with the eighth sign that makes the number of minuses even.
    #[inline(always)]
    unsafe fn even_signs(bits: [u32; 8]) -> [u32; 8] {
        let mut spread = bits;
        for x in &mut spread {
            let seven = |at: u32| (*x >> (7 * at) & 127) << (8 * at);
            *x = seven(0) | seven(1) | seven(2) | seven(3);
        }
        // SAFETY: the caller's promise.
        unsafe { Self::eighth_signs(spread) }
    }
    /// Adds the eighth sign to each byte of 7.
    #[inline(always)]
    unsafe fn eighth_signs(signs: [u32; 8]) -> [u32; 8] {
        let mut even = signs;
        for x in &mut even {
            // Sums of bits without carry; what comes from the next byte stays in the upper half.
            let y = *x ^ *x >> 4;
            let y = y ^ y >> 2;
            let y = y ^ y >> 1;
            *x |= (y & 0x0101_0101) << 7;
        }
        even
    }

    /// Writes 32 codes: those of a grid in their order, negated where a bit of `signs` is set. They are
    /// above 0; `N` is 4 or 8.
    #[inline(always)]
    unsafe fn write_signed<const N: usize, const G: usize>(
        out: &mut [i8; 32],
        grid: [&[i8; N]; G],
        signs: u32,
    ) {
        const { assert!(N * G == 32 && (N == 4 || N == 8)) };
        for (l, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let mut values = [0; 8];
            for (part, values) in values.as_chunks_mut::<N>().0.iter_mut().enumerate() {
                *values = *grid[l * 8 / N + part];
            }
            signs::apply(&values, (signs >> (8 * l)) as u8, out);
        }
    }

    /// Writes 32 codes: those of a grid, and to each 8 of them a byte of `by` added.
    #[inline(always)]
    unsafe fn write_moved(out: &mut [i8; 32], grid: [&[i8; 8]; 4], by: u32) {
        for (l, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let by = (by >> (8 * l)) as i8;
            for (out, code) in out.iter_mut().zip(grid[l]) {
                *out = code.wrapping_add(by);
            }
        }
    }
    /// Indices of 11 bits, on which callers rely: a byte of `low` each, and above it the lower 3 of 4
    /// bits of `high`.
    #[inline(always)]
    unsafe fn indices(low: &[u8; 32], high: [u16; 8]) -> [u16; 32] {
        let mut all = [0; 32];
        for (i, (all, low)) in all.iter_mut().zip(low).enumerate() {
            let above = high[i / 4] >> (4 * (i % 4)) & 7;
            *all = u16::from(*low) | above << 8;
        }
        all
    }
    /// Indices of 9 bits, on which callers rely: bit `i` of `high` above byte `i` of `low`.
    #[inline(always)]
    unsafe fn ninth_bits(low: &[u8; 64], high: u64) -> [u16; 64] {
        let mut all = [0; 64];
        for (i, (all, low)) in all.iter_mut().zip(low).enumerate() {
            *all = u16::from(*low) + (high >> i & 1) as u16 * 256;
        }
        all
    }

    /// The same for `C` columns, 32 bytes apart, and codes that [`store_panel`](Self::store_panel)
    /// wrote.
    unsafe fn tile<const C: usize, const N: usize>(
        w: *const u8,
        a: *const u8,
        signed: bool,
        top: i32,
    ) -> [Self::I; C];

    /// [`tile`](Self::tile) of `R` registers of rows, whose codes are `apart` bytes apart.
    #[inline(always)]
    unsafe fn tiles<const R: usize, const C: usize, const N: usize>(
        w: *const u8,
        apart: usize,
        a: *const u8,
        signed: bool,
        top: i32,
    ) -> [[Self::I; C]; R] {
        // SAFETY: the caller's promise.
        unsafe {
            let mut sums = [[Self::splat_i(0); C]; R];
            for (r, sums) in sums.iter_mut().enumerate() {
                *sums = Self::tile::<C, N>(w.add(r * apart), a, signed, top);
            }
            sums
        }
    }

    /// Writes 32 codes of each row, of which `zero` stands for 0, for [`tile`](Self::tile).
    #[inline(always)]
    unsafe fn store_panel(p: *mut u8, w: &[Self::I; WORDS], _zero: i32) {
        for (i, w) in w.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { Self::store_i(p.add(4 * Self::ROWS * i).cast(), *w) };
        }
    }
}

/// Levels that multiply a word of each row with the same 4 activations.
///
/// # Safety
/// As for [`Simd`].
pub unsafe trait WordDot: Simd {
    /// Adds the products of each row's 4 codes with the activations `a`, which are signed and never
    /// -128. `signed` says whether the codes are.
    unsafe fn dot(acc: Self::I, w: Self::I, a: i32, signed: bool) -> Self::I;

    /// [`Simd::dots`]
    #[inline(always)]
    unsafe fn word_dots<const N: usize>(w: &[Self::I; N], a: *const u8, signed: bool) -> Self::I {
        // SAFETY: the caller's promise.
        unsafe {
            // Two chains: one alone would wait for itself.
            let mut acc = [Self::splat_i(0); 2];
            for i in 0..N {
                let a = a.add(4 * i).cast::<i32>().read_unaligned();
                acc[i % 2] = Self::dot(acc[i % 2], w[i], a, signed);
            }
            Self::add_i(acc[0], acc[1])
        }
    }

    /// [`Simd::tiles`]
    #[inline(always)]
    unsafe fn word_tiles<const R: usize, const C: usize, const N: usize>(
        w: *const u8,
        apart: usize,
        a: *const u8,
        signed: bool,
    ) -> [[Self::I; C]; R] {
        // SAFETY: the caller's promise.
        unsafe {
            let mut acc = [[Self::splat_i(0); C]; R];
            for i in 0..N {
                let mut words = [Self::splat_i(0); R];
                for (r, word) in words.iter_mut().enumerate() {
                    *word = Self::load_i(w.add(r * apart + 4 * Self::ROWS * i).cast());
                }
                for c in 0..C {
                    let a = a.add(32 * c + 4 * i).cast::<i32>().read_unaligned();
                    for r in 0..R {
                        acc[r][c] = Self::dot(acc[r][c], words[r], a, signed);
                    }
                }
            }
            acc
        }
    }
}
