//! Signs of 8 grid values at once.

/// Eight masks, -1 for a minus and 0 for a plus, bit `j` of `signs` for mask `j`.
const fn masks(signs: u8) -> [i8; 8] {
    let mut masks = [0; 8];
    let mut j = 0;
    while j < 8 {
        masks[j] = -((signs >> j & 1) as i8);
        j += 1;
    }
    masks
}

/// The masks of every byte of signs.
static MASKS: [[i8; 8]; 256] = {
    let mut table = [[0; 8]; 256];
    let mut signs = 0;
    while signs < 256 {
        table[signs] = masks(signs as u8);
        signs += 1;
    }
    table
};

/// The masks of 7 signs, the eighth of which makes the number of minuses even.
static EVEN_MASKS: [[i8; 8]; 128] = {
    let mut table = [[0; 8]; 128];
    let mut signs: u8 = 0;
    while signs < 128 {
        table[signs as usize] = masks(signs | (signs.count_ones() as u8 & 1) << 7);
        signs += 1;
    }
    table
};

/// Gives the values the signs of a byte: a set bit is a minus.
#[inline(always)]
pub fn apply(values: &[i8; 8], signs: u8, out: &mut [i8; 8]) {
    negate(values, &MASKS[usize::from(signs)], out);
}

/// Gives the values the signs in the lower 7 bits of `signs`.
#[inline(always)]
pub fn apply_even(values: &[i8; 8], signs: u32, out: &mut [i8; 8]) {
    negate(values, &EVEN_MASKS[(signs & 127) as usize], out);
}

#[inline(always)]
fn negate(values: &[i8; 8], masks: &[i8; 8], out: &mut [i8; 8]) {
    for j in 0..8 {
        out[j] = (values[j] ^ masks[j]) - masks[j];
    }
}
