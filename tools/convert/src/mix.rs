//! Which type each tensor gets in a named file type.
//!
//! The rules are llama.cpp's (`llama_tensor_get_type` of its `llama-quant.cpp`), as a table: a file
//! of a name has the same types here as there, so that figures published for the name hold.

use siskin::GgmlType;

use crate::file_type::FileType;
use crate::{Facts, TensorDesc, plan};

/// What a tensor does in a model, as far as the choice of its type goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The output matrix.
    Output,
    /// The embeddings.
    TokenEmbd,
    /// Queries.
    AttnQ,
    /// Keys.
    AttnK,
    /// Values.
    AttnV,
    /// Queries, keys and values in one.
    AttnQkv,
    /// Attention's output.
    AttnOutput,
    /// The gate of the feed-forward part, of experts too.
    FfnGate,
    /// Up.
    FfnUp,
    /// Down.
    FfnDown,
    /// Anything else.
    Other,
}

/// Parts of names, and the role of tensors that have them.
const ROLES: [(&str, Role); 8] = [
    ("attn_qkv.weight", Role::AttnQkv),
    ("attn_v.weight", Role::AttnV),
    ("attn_k.weight", Role::AttnK),
    ("attn_q.weight", Role::AttnQ),
    ("attn_output.weight", Role::AttnOutput),
    ("ffn_up", Role::FfnUp),
    ("ffn_gate", Role::FfnGate),
    ("ffn_down", Role::FfnDown),
];

impl Role {
    /// The role of the tensor with this GGUF name.
    pub fn of(name: &str) -> Role {
        match name {
            "output.weight" => Role::Output,
            "token_embd.weight" | "per_layer_token_embd.weight" => Role::TokenEmbd,
            _ => {
                ROLES.iter().find(|(part, _)| name.contains(part)).map_or(Role::Other, |(_, r)| *r)
            }
        }
    }

    /// As the tensors of the role are called.
    pub fn name(self) -> &'static str {
        match self {
            Role::Output => "output",
            Role::TokenEmbd => "token_embd",
            Role::AttnQ => "attn_q",
            Role::AttnK => "attn_k",
            Role::AttnV => "attn_v",
            Role::AttnQkv => "attn_qkv",
            Role::AttnOutput => "attn_output",
            Role::FfnGate => "ffn_gate",
            Role::FfnUp => "ffn_up",
            Role::FfnDown => "ffn_down",
            Role::Other => "other",
        }
    }

    /// Values, alone or with queries and keys: what suffers most.
    fn has_values(self) -> bool {
        matches!(self, Role::AttnV | Role::AttnQkv)
    }
}

/// The layer in a name such as `blk.3.attn_q.weight`.
pub fn layer_of(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split_once('.')?.0.parse().ok()
}

/// Parts of the names of matrices that stay as they are: they are small, and a model suffers.
const KEPT: [&str; 24] = [
    "_norm.weight",
    "ffn_gate_inp.weight",
    "ffn_gate_tid2eid.weight",
    "altup",
    "laurel",
    "per_layer_model_proj",
    "position_embd.weight",
    "token_types.weight",
    "ssm_conv1d",
    "shortconv.conv.weight",
    "indexer.k_proj.weight",
    "indexer.q_proj.weight",
    "time_mix_first.weight",
    "time_mix_w0.weight",
    "time_mix_w1.weight",
    "time_mix_w2.weight",
    "time_mix_v0.weight",
    "time_mix_v1.weight",
    "time_mix_v2.weight",
    "time_mix_a",
    "time_mix_g",
    "time_mix_decay_w",
    "time_mix_lerp_fused.weight",
    "attn_rel_b.weight",
];

/// False for what stays as it is whatever the file type: vectors, norms, and the small matrices of
/// some architectures.
pub fn is_quantized(tensor: &TensorDesc) -> bool {
    tensor.shape.iter().skip(1).any(|n| *n > 1)
        && tensor.name.ends_with("weight")
        && !KEPT.iter().any(|part| tensor.name.contains(part))
}

/// True if the type wants an importance matrix: without, a file is of no use.
pub fn needs_imatrix(role: Role, ty: GgmlType, file: &FileType) -> bool {
    use GgmlType::{IQ1_M, IQ1_S, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_XXS, Q2_K};
    if matches!(role, Role::Output | Role::TokenEmbd) {
        return false;
    }
    match ty {
        IQ3_XXS | IQ2_XXS | IQ2_XS | IQ2_S | IQ1_M | IQ1_S => true,
        Q2_K => file.name == "Q2_K_S",
        _ => false,
    }
}

/// The type that takes the place of `ty` where rows of `cols` are not whole blocks of it: one with
/// smaller blocks and no fewer bits, or F16.
pub fn fitting(ty: GgmlType, cols: usize) -> GgmlType {
    use GgmlType::{F16, IQ4_NL, NVFP4, Q1_0, Q2_0, Q2_K, Q3_K, Q4_0, Q4_K, Q5_0, Q5_1, Q5_K};
    use GgmlType::{Q6_K, Q8_0, TQ1_0, TQ2_0};
    let fits = |ty: GgmlType| cols.is_multiple_of(ty.block_len());
    if fits(ty) {
        return ty;
    }
    let smaller = match ty {
        Q1_0 | Q2_0 | TQ1_0 | TQ2_0 | Q2_K | Q3_K => Q4_0,
        Q4_K => Q5_0,
        Q5_K => Q5_1,
        Q6_K | NVFP4 => Q8_0,
        _ => IQ4_NL,
    };
    if fits(smaller) { smaller } else { F16 }
}

/// A condition of a rule.
#[derive(Clone, Copy)]
enum If {
    /// At least four heads of queries share one of keys and values.
    Grouped,
    /// As [`If::Grouped`], or there are four experts or more.
    GroupedOrExperts,
    /// There are eight experts.
    Experts8,
    /// There are not.
    NotExperts8,
    /// It is Llama's 70B model.
    Llama70B,
    /// There is an importance matrix.
    Imatrix,
    /// There is none.
    NoImatrix,
    /// One of the first so many of its kind.
    First(usize),
    /// In the first so-manieth part of the layers.
    Early(usize),
    /// In the first or last eighth, or every third between.
    MoreBits,
    /// In neither the first nor the last eighth.
    Middle,
}

/// Of tensors of these roles in files of these types, where all conditions hold, the type.
struct Rule(&'static [&'static str], &'static [Role], &'static [If], GgmlType);

const VALUES: &[Role] = &[Role::AttnV, Role::AttnQkv];
/// The types of less than 3 bits.
const TINY: &[&str] = &["IQ2_XXS", "IQ2_XS", "IQ1_S", "IQ1_M", "IQ2_S", "IQ2_M"];
const IQ2_LARGE: &[&str] = &["IQ2_S", "IQ2_M"];
const IQ1: &[&str] = &["IQ1_S", "IQ1_M"];
/// The types whose attention output gets 5 bits in a model of eight experts.
const EXPERT_OUTPUT: &[&str] = &[
    "Q2_K", "IQ3_XS", "IQ3_XXS", "Q3_K_S", "Q3_K_M", "IQ4_NL", "Q4_K_S", "Q4_K_M", "IQ3_S",
    "IQ3_M", "IQ4_XS",
];

/// The first that fits is taken; where none does, the file type's own type.
#[rustfmt::skip]
const RULES: &[Rule] = {
    use GgmlType::*;
    use If::*;
    use Role::*;
    &[
        Rule(&["IQ2_XXS", "IQ2_XS", "IQ1_S", "IQ1_M"], &[TokenEmbd], &[], Q2_K),
        Rule(&["IQ2_S", "IQ2_M", "IQ3_XXS"], &[TokenEmbd], &[], IQ3_S),
        Rule(&["TQ1_0", "TQ2_0", "Q2_0"], &[TokenEmbd], &[], Q4_K),

        Rule(TINY, VALUES, &[GroupedOrExperts], Q4_K),
        Rule(IQ2_LARGE, VALUES, &[], IQ3_S),
        Rule(TINY, VALUES, &[], Q2_K),
        Rule(TINY, &[AttnK], &[Experts8], Q4_K),
        Rule(IQ2_LARGE, &[FfnDown], &[Early(8)], IQ3_S),
        Rule(TINY, &[FfnDown], &[Early(8)], Q2_K),
        Rule(TINY, &[AttnOutput], &[Experts8], Q5_K),
        Rule(IQ1, &[AttnOutput], &[], IQ2_XXS),
        Rule(IQ2_LARGE, &[AttnOutput], &[], IQ3_S),

        Rule(&[], VALUES, &[Experts8], Q8_0),
        Rule(&["Q3_K_M"], VALUES, &[First(2)], Q5_K),
        Rule(&["Q4_K_M"], VALUES, &[Llama70B, MoreBits], Q6_K),
        Rule(&["Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M"], VALUES, &[Llama70B], Q5_K),
        Rule(&["Q2_K", "Q2_K_S", "IQ3_XXS", "IQ3_XS", "IQ3_S", "IQ3_M"], VALUES, &[Llama70B], Q5_K),
        Rule(&["Q2_K", "Q2_K_S", "IQ3_XXS", "IQ3_XS", "IQ3_S"], VALUES, &[Grouped], Q4_K),
        Rule(&["Q2_K"], VALUES, &[], Q3_K),
        Rule(&["IQ3_XXS"], VALUES, &[NoImatrix], IQ3_S),
        Rule(&["IQ3_M", "Q3_K_M"], VALUES, &[], Q4_K),
        Rule(&["Q3_K_L"], VALUES, &[], Q5_K),
        Rule(&["IQ4_NL", "IQ4_XS"], VALUES, &[Grouped], Q5_K),
        Rule(&["Q4_K_M", "Q5_K_M"], VALUES, &[MoreBits], Q6_K),
        Rule(&["Q4_K_S"], VALUES, &[First(4)], Q5_K),

        Rule(&[], &[AttnK], &[Experts8], Q8_0),
        Rule(&["IQ3_XS"], &[AttnK, AttnQ], &[], IQ3_XXS),
        Rule(&["IQ3_XXS"], &[AttnK, AttnQ], &[], IQ2_S),

        Rule(&["Q2_K"], &[FfnDown], &[], Q3_K),
        Rule(&["Q2_K_S"], &[FfnDown], &[Early(8)], Q4_K),
        Rule(&["IQ3_XXS"], &[FfnDown], &[NoImatrix, Early(8)], Q4_K),
        Rule(&["IQ3_XXS"], &[FfnDown], &[NoImatrix], Q3_K),
        Rule(&["Q3_K_M"], &[FfnDown], &[Early(16)], Q5_K),
        Rule(&["Q3_K_M"], &[FfnDown], &[], Q4_K),
        Rule(&["IQ3_M"], &[FfnDown], &[Early(8)], Q4_K),
        Rule(&["IQ3_M"], &[FfnDown], &[Experts8, MoreBits], Q4_K),
        Rule(&["Q3_K_L"], &[FfnDown], &[], Q5_K),
        Rule(&["Q4_K_M", "Q5_K_M"], &[FfnDown], &[MoreBits], Q6_K),
        Rule(&["IQ4_NL", "IQ4_XS"], &[FfnDown], &[NoImatrix, Early(8)], Q5_K),
        Rule(&["Q4_K_S"], &[FfnDown], &[Early(8)], Q5_K),
        Rule(&["Q4_0"], &[FfnDown], &[Imatrix, Early(8)], Q4_1),
        Rule(&["Q5_0"], &[FfnDown], &[Imatrix, Early(8)], Q5_1),

        Rule(EXPERT_OUTPUT, &[AttnOutput], &[Experts8], Q5_K),
        Rule(&["Q2_K"], &[AttnOutput], &[NotExperts8], Q3_K),
        Rule(&["IQ3_XXS"], &[AttnOutput], &[NotExperts8], IQ3_S),
        Rule(&["Q3_K_M", "IQ3_M"], &[AttnOutput], &[NotExperts8], Q4_K),
        Rule(&["Q3_K_L"], &[AttnOutput], &[NotExperts8], Q5_K),

        Rule(&["IQ3_XS"], &[FfnGate, FfnUp], &[Middle], IQ3_XXS),
    ]
};

/// Where a tensor stands among those of its role: its index, and how many there are.
#[derive(Clone, Copy)]
struct Place {
    i: usize,
    n: usize,
}

impl If {
    fn holds(self, facts: &Facts, imatrix: bool, Place { i, n }: Place) -> bool {
        let grouped = facts.n_head / facts.n_head_kv.max(1) >= 4;
        match self {
            If::Grouped => grouped,
            If::GroupedOrExperts => grouped || facts.n_expert >= 4,
            If::Experts8 => facts.n_expert == 8,
            If::NotExperts8 => facts.n_expert != 8,
            If::Llama70B => {
                facts.arch == "llama" && facts.n_layer == 80 && facts.n_head != facts.n_head_kv
            }
            If::Imatrix => imatrix,
            If::NoImatrix => !imatrix,
            If::First(count) => i < count,
            If::Early(part) => i < n / part,
            If::MoreBits => i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2,
            If::Middle => i >= n / 8 && i < 7 * n / 8,
        }
    }
}

/// True if the embeddings are the output matrix.
pub fn tied(tensors: &[TensorDesc]) -> bool {
    !tensors.iter().any(|t| Role::of(&t.name) == Role::Output)
}

/// The rules of a file type, for the tensors of one model.
pub struct Mix<'a> {
    file: &'a FileType,
    facts: &'a Facts,
    imatrix: bool,
    /// The layers of the matrices of values, in order.
    values: Vec<Option<usize>>,
    tied: bool,
}

impl<'a> Mix<'a> {
    /// For a model with these tensors; `imatrix` says whether there is an importance matrix.
    pub fn new(
        file: &'a FileType,
        tensors: &[TensorDesc],
        facts: &'a Facts,
        imatrix: bool,
    ) -> Mix<'a> {
        let values = tensors.iter().filter(|t| Role::of(&t.name).has_values());
        let mut values: Vec<_> = values.map(|t| layer_of(&t.name)).collect();
        values.sort_unstable();
        let tied = tied(tensors);
        Mix { file, facts, imatrix, values, tied }
    }

    /// The type of a tensor, if its rows are whole blocks of it (see [`fitting`]).
    pub fn choose(&self, tensor: &TensorDesc) -> GgmlType {
        if plan::is_float(self.file.base) {
            return self.file.base;
        }
        let role = Role::of(&tensor.name);
        if role == Role::Output || (role == Role::TokenEmbd && self.tied) {
            return output_type(self.file, tensor.cols());
        }
        if self.file.name == "MXFP4_MOE" {
            let expert = tensor.shape.get(2).is_some_and(|n| *n > 1);
            return if expert { GgmlType::MXFP4 } else { GgmlType::Q8_0 };
        }
        let layer = layer_of(&tensor.name);
        let place = if role.has_values() {
            let before = self.values.iter().filter(|l| **l < layer).count();
            Place { i: before, n: self.values.len() }
        } else {
            Place { i: layer.unwrap_or(0), n: self.facts.n_layer }
        };
        let holds = |condition: &If| condition.holds(self.facts, self.imatrix, place);
        let fits = |Rule(files, roles, conditions, _): &&Rule| {
            (files.is_empty() || files.contains(&self.file.name))
                && roles.contains(&role)
                && conditions.iter().all(holds)
        };
        RULES.iter().find(fits).map_or(self.file.base, |rule| rule.3)
    }
}

/// The type of the output matrix, which decides every token.
fn output_type(file: &FileType, cols: usize) -> GgmlType {
    if file.name == "MXFP4_MOE" || !cols.is_multiple_of(file.base.block_len()) {
        GgmlType::Q8_0
    } else if TINY.contains(&file.name) || file.name == "IQ3_XXS" {
        GgmlType::Q5_K
    } else if file.base == GgmlType::Q8_0 {
        GgmlType::Q8_0
    } else {
        GgmlType::Q6_K
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_that_does_not_fit_is_replaced_as_in_llama_cpp() {
        assert_eq!(fitting(GgmlType::Q4_K, 2048), GgmlType::Q4_K);
        assert_eq!(fitting(GgmlType::Q4_K, 576), GgmlType::Q5_0);
        assert_eq!(fitting(GgmlType::Q6_K, 576), GgmlType::Q8_0);
        assert_eq!(fitting(GgmlType::IQ3_S, 576), GgmlType::IQ4_NL);
        assert_eq!(fitting(GgmlType::Q4_K, 50), GgmlType::F16);
    }

    #[test]
    fn vectors_and_norms_stay_as_they_are() {
        let tensor = |name: &str, shape: &[u64]| TensorDesc {
            name: name.into(),
            shape: shape.to_vec(),
            ty: GgmlType::F32,
        };
        assert!(is_quantized(&tensor("blk.0.ffn_up.weight", &[64, 32])));
        assert!(is_quantized(&tensor("blk.0.ffn_up_exps.weight", &[64, 32, 4])));
        assert!(!is_quantized(&tensor("blk.0.ffn_up.bias", &[64])));
        assert!(!is_quantized(&tensor("blk.0.ffn_up.weight", &[64, 1])));
        assert!(!is_quantized(&tensor("blk.0.attn_q_norm.weight", &[64, 32])));
        assert!(!is_quantized(&tensor("blk.0.ffn_gate_inp.weight", &[64, 32])));
    }
}
