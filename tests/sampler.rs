//! What the sampler promises.

use serde_json::Value;
use siskin::Error;
use siskin::sampler::{DryBreakers, LogProbs, Rng, Sampler, SamplerParams, Stage, StopStrings};

/// Logits that tests/data/sampler/record.py makes too: sums of four numbers of a linear
/// congruential generator, squared to spread the ends.
fn row(n: usize, seed: u32, scale: f32) -> Vec<f32> {
    let mut state = seed;
    (0..n)
        .map(|_| {
            let sum: i64 = (0..4)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    i64::from(state >> 12)
                })
                .sum();
            let v = (sum - (1 << 21)) as f32 / (1 << 19) as f32;
            v * v.abs() * scale
        })
        .collect()
}

fn params(case: &Value) -> SamplerParams {
    let mut p = SamplerParams { seed: Some(1), ..Default::default() };
    for (name, value) in case["params"].as_object().expect("params") {
        let float = value.as_f64().unwrap_or(f64::NAN) as f32;
        let size = value.as_u64().unwrap_or(0) as usize;
        match name.as_str() {
            "temp" => p.temp = float,
            "dynatemp_range" => p.dynatemp_range = float,
            "dynatemp_exponent" => p.dynatemp_exponent = float,
            "top_k" => p.top_k = size,
            "top_p" => p.top_p = float,
            "min_p" => p.min_p = float,
            "typ_p" => p.typ_p = float,
            "top_n_sigma" => p.top_n_sigma = float,
            "xtc_probability" => p.xtc_probability = float,
            "xtc_threshold" => p.xtc_threshold = float,
            "min_keep" => p.min_keep = size,
            "penalty_last_n" => p.penalty_last_n = size,
            "penalty_repeat" => p.penalty_repeat = float,
            "penalty_freq" => p.penalty_freq = float,
            "penalty_present" => p.penalty_present = float,
            "dry_multiplier" => p.dry_multiplier = float,
            "dry_base" => p.dry_base = float,
            "dry_allowed_length" => p.dry_allowed_length = size,
            "dry_penalty_last_n" => p.dry_penalty_last_n = size,
            "mirostat" => p.mirostat = size as u32,
            "mirostat_tau" => p.mirostat_tau = float,
            "mirostat_eta" => p.mirostat_eta = float,
            "logit_bias" => {
                for pair in value.as_array().expect("pairs") {
                    let token = pair[0].as_u64().expect("a token") as u32;
                    p.logit_bias.push((token, pair[1].as_f64().expect("a bias") as f32));
                }
            }
            "order" => {
                let names = value.as_array().expect("names").iter();
                p.order = names
                    .map(|n| n.as_str().expect("a name").parse::<Stage>().expect("a stage"))
                    .collect();
            }
            other => panic!("unknown parameter {other}"),
        }
    }
    p
}

fn pairs(value: &Value) -> Vec<(u32, f32)> {
    let pairs = value.as_array().expect("pairs").iter();
    pairs
        .map(|p| (p[0].as_u64().expect("id") as u32, p[1].as_f64().expect("probability") as f32))
        .collect()
}

#[test]
fn every_stage_leaves_what_llama_cpp_leaves() {
    let cases: Vec<Value> =
        serde_json::from_str(include_str!("data/sampler/cases.json")).expect("JSON");
    assert!(cases.len() > 100);
    let mut wrong = Vec::new();
    for case in &cases {
        let n = case["n_vocab"].as_u64().expect("n") as usize;
        let seed = case["row_seed"].as_u64().expect("seed") as u32;
        let logits = row(n, seed, case["scale"].as_f64().expect("scale") as f32);
        let history: Vec<u32> = case["history"]
            .as_array()
            .expect("history")
            .iter()
            .map(|t| t.as_u64().expect("token") as u32)
            .collect();
        let mut sampler = Sampler::new(&params(case), n, DryBreakers::none()).expect("valid");
        let got = sampler.distribution(&logits, &history).expect("candidates");
        let (best, worst) = (pairs(&case["best"]), pairs(&case["worst"]));
        let same = |a: &[(u32, f32)], b: &[(u32, f32)]| {
            a.len() == b.len()
                && a.iter().zip(b).all(|(a, b)| {
                    // Tokens of equal probability may stand in either order.
                    (a.1 - b.1).abs() <= 2e-5 * a.1.max(1e-6)
                        && (a.0 == b.0 || (a.1 - b.1).abs() <= 1e-6 * a.1)
                })
        };
        let left = case["left"].as_u64().expect("count") as usize;
        if got.len() != left
            || !same(&got[..best.len().min(got.len())], &best)
            || !same(&got[got.len() - worst.len()..], &worst)
        {
            wrong.push(format!(
                "{}: {} left, not {left}\n  got  {:?}\n  want {best:?}",
                case["name"],
                got.len(),
                &got[..got.len().min(12)]
            ));
        }
        let token = sampler.sample(&logits, &history).expect("a token");
        assert!(got.iter().any(|c| c.0 == token), "{} drew {token}", case["name"]);
    }
    assert!(wrong.is_empty(), "{} of {} cases\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

fn sampler(params: &SamplerParams, n_vocab: usize) -> Sampler {
    Sampler::new(params, n_vocab, DryBreakers::none()).expect("valid parameters")
}

/// No stage at all: every token by its softmax.
fn plain() -> SamplerParams {
    SamplerParams { seed: Some(7), temp: 1.0, order: Vec::new(), ..Default::default() }
}

#[test]
fn random_numbers_are_xoshiro256_plus_plus() {
    // By an independent implementation.
    let cases = [
        (42, [0xd076_4d4f_4476_689f, 0x519e_4174_576f_3791, 0xfbe0_7cfb_0c24_ed8c]),
        (0, [0x5317_5d61_490b_23df, 0x61da_6f3d_c380_d507, 0x5c0f_df91_ec9a_7bfc]),
    ];
    for (seed, first) in cases {
        let mut rng = Rng::new(seed);
        assert_eq!(first.map(|_| rng.next_u64()), first, "seed {seed}");
    }
    let mut rng = Rng::new(3);
    for _ in 0..1000 {
        assert!((0.0..1.0).contains(&rng.next_f64()));
    }
}

#[test]
fn a_seed_gives_the_same_tokens_on_every_machine() {
    // Whatever changes these changes the text that users get for a seed: the version must say so.
    let stages = [
        ("defaults", SamplerParams::default()),
        ("no top-k", SamplerParams { top_k: 0, min_p: 0.0, temp: 1.3, ..Default::default() }),
        ("plain", plain()),
        (
            "much",
            SamplerParams {
                typ_p: 0.95,
                top_n_sigma: 4.0,
                xtc_probability: 0.5,
                dynatemp_range: 0.4,
                dynatemp_exponent: 1.3,
                penalty_repeat: 1.1,
                penalty_freq: 0.1,
                dry_multiplier: 0.8,
                ..Default::default()
            },
        ),
        ("mirostat", SamplerParams { mirostat: 2, mirostat_tau: 4.0, ..Default::default() }),
    ];
    let logits = row(5000, 11, 0.5);
    let mut got = Vec::new();
    for (name, params) in stages {
        let params = SamplerParams { seed: Some(2026), ..params };
        let mut sampler = sampler(&params, logits.len());
        let run = |sampler: &mut Sampler| {
            let mut history = vec![4, 8, 15];
            for _ in 0..12 {
                history.push(sampler.sample(&logits, &history).expect("a token"));
            }
            history.split_off(3)
        };
        let first = run(&mut sampler);
        sampler.reset();
        assert_eq!(run(&mut sampler), first, "{name} after a reset");
        got.push((name, first));
    }
    let got: Vec<_> = got.iter().map(|(n, t)| (*n, t.as_slice())).collect();
    let want: [(&str, &[u32]); 5] = [
        ("defaults", &[262, 3284, 2198, 1668, 3702, 2136, 3510, 540, 1319, 2820, 2136, 1975]),
        ("no top-k", &[839, 2444, 2795, 4551, 4788, 316, 2358, 4900, 1449, 4044, 2723, 2268]),
        ("plain", &[2078, 3012, 3599, 4330, 143, 4656, 3989, 4544, 4041, 2307, 4626, 2847]),
        ("much", &[3221, 3921, 1319, 2136, 3702, 965, 1013, 368, 540, 1975, 3471, 2198]),
        ("mirostat", &[2153, 2847, 3510, 3952, 262, 4698, 3702, 4698, 3921, 2354, 4698, 3138]),
    ];
    assert_eq!(got, want);
}

#[test]
fn another_seed_gives_other_tokens_and_none_gives_a_new_one() {
    let logits = row(5000, 11, 0.2);
    let draw = |seed| {
        let mut s = sampler(&SamplerParams { seed, ..plain() }, logits.len());
        (0..8).map(|_| s.sample(&logits, &[]).expect("a token")).collect::<Vec<_>>()
    };
    assert_ne!(draw(Some(1)), draw(Some(2)));
    assert_ne!(draw(None), draw(None));
    let unnamed = sampler(&SamplerParams { seed: None, ..plain() }, 5000);
    assert_eq!(draw(Some(unnamed.seed())), draw(Some(unnamed.seed())));
}

#[test]
fn tokens_are_drawn_as_often_as_they_are_probable() {
    let logits = [0.0, 1.0, 2.0, f32::NEG_INFINITY, 0.5];
    let mut sampler = sampler(&plain(), logits.len());
    let expected = sampler.distribution(&logits, &[]).expect("a distribution");
    const DRAWS: u32 = 200_000;
    let mut counts = [0u32; 5];
    for _ in 0..DRAWS {
        counts[sampler.sample(&logits, &[]).expect("a token") as usize] += 1;
    }
    assert_eq!(counts[3], 0);
    let chi2: f32 = expected
        .iter()
        .map(|&(id, p)| {
            let e = p * DRAWS as f32;
            (counts[id as usize] as f32 - e).powi(2) / e
        })
        .sum();
    // 3 degrees of freedom: 1 in 10,000 seeds is above this.
    assert!(chi2 < 21.1, "{counts:?} against {expected:?}");
}

#[test]
fn xtc_acts_as_often_as_its_probability() {
    let logits = [3.0, 2.9, 0.0];
    let params = SamplerParams { xtc_probability: 0.3, order: vec![Stage::Xtc], ..plain() };
    let mut sampler = sampler(&params, 3);
    let acted = (0..20_000)
        .filter(|_| sampler.distribution(&logits, &[]).expect("tokens").len() == 2)
        .count();
    assert!((5700..6300).contains(&acted), "{acted} of 20000");
}

#[test]
fn mirostat_steers_the_surprise_to_its_target() {
    let logits = row(3000, 5, 0.3);
    let mut lp = LogProbs::new(3000).unwrap();
    let all = lp.top(&logits, 3000).to_vec();
    for tau in [2.0, 4.0] {
        let params = SamplerParams { mirostat: 2, mirostat_tau: tau, temp: 1.0, ..plain() };
        let mut sampler = sampler(&params, 3000);
        for _ in 0..200 {
            sampler.sample(&logits, &[]).expect("a token");
        }
        // The surprise that the update sees is among the tokens that were left.
        let n = sampler.distribution(&logits, &[]).expect("tokens");
        let entropy: f32 = n.iter().map(|&(_, p)| -p * p.log2()).sum();
        assert!(
            (entropy - tau).abs() < 0.6,
            "{entropy} bits for {tau}, {} of {}",
            n.len(),
            all.len()
        );
    }
}

#[test]
fn temperature_zero_takes_the_first_maximum() {
    let cases: [(&[f32], u32); 6] = [
        (&[1.0, 3.0, 3.0, 2.0], 1),
        (&[f32::NAN, -5.0, f32::NAN, -6.0], 1),
        (&[f32::NEG_INFINITY, f32::NEG_INFINITY, -f32::MAX], 2),
        (&[1.0, f32::INFINITY, f32::INFINITY], 1),
        (&[-0.0, 0.0], 0),
        (&[7.0], 0),
    ];
    for (logits, want) in cases {
        for params in [
            SamplerParams::greedy(),
            SamplerParams { mirostat: 2, ..SamplerParams::greedy() },
            SamplerParams { penalty_repeat: 1.1, typ_p: 0.999, ..SamplerParams::greedy() },
            SamplerParams { top_k: 1, ..Default::default() },
            SamplerParams { top_p: 0.0, top_k: 0, ..Default::default() },
        ] {
            let mut sampler = sampler(&params, logits.len());
            assert_eq!(
                sampler.sample(logits, &[]).expect("a token"),
                want,
                "{logits:?} {params:?}"
            );
        }
    }
}

#[test]
fn of_equal_logits_the_lower_ids_are_kept() {
    let mut logits = vec![1.0; 3000];
    logits[2999] = 2.0;
    for top_k in [1, 2, 40, 700, 2500] {
        let params = SamplerParams { top_k, order: vec![Stage::TopK], ..plain() };
        let mut ids: Vec<u32> = sampler(&params, 3000)
            .distribution(&logits, &[])
            .expect("tokens")
            .iter()
            .map(|c| c.0)
            .collect();
        assert_eq!(ids.remove(0), 2999);
        assert_eq!(ids, (0..top_k as u32 - 1).collect::<Vec<_>>());
    }
}

#[test]
fn top_k_keeps_the_best_wherever_they_stand() {
    type Shape = fn(usize) -> f32;
    let shapes: [(&str, Shape); 5] = [
        ("rising", |i| i as f32),
        ("falling", |i| -(i as f32)),
        ("waves", |i| ((i * 7919) % 4096) as f32),
        ("steps", |i| (i / 1000) as f32),
        ("with NaN", |i| if i % 3 == 0 { f32::NAN } else { (i % 1013) as f32 }),
    ];
    for (name, f) in shapes {
        let logits: Vec<f32> = (0..20_000).map(f).collect();
        let mut want: Vec<(f32, u32)> =
            logits.iter().copied().zip(0..).filter(|c| !c.0.is_nan()).collect();
        want.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        for top_k in [1, 3, 40, 256, 5000, 13_000, 19_999] {
            let params = SamplerParams { top_k, order: vec![Stage::TopK], ..plain() };
            let got = sampler(&params, logits.len()).distribution(&logits, &[]).expect("tokens");
            let got: Vec<u32> = got.iter().map(|c| c.0).collect();
            let want: Vec<u32> = want.iter().take(top_k).map(|c| c.1).collect();
            assert_eq!(got, want, "{name}, {top_k}");
        }
    }
}

#[test]
fn rows_without_a_token_to_choose_are_errors() {
    let rows: [&[f32]; 3] = [
        &[f32::NAN, f32::NAN],
        &[f32::NEG_INFINITY, f32::NEG_INFINITY],
        &[f32::NAN, f32::NEG_INFINITY],
    ];
    let all = SamplerParams {
        typ_p: 0.5,
        top_n_sigma: 1.0,
        xtc_probability: 1.0,
        dynatemp_range: 0.2,
        penalty_repeat: 1.1,
        dry_multiplier: 1.0,
        ..Default::default()
    };
    let no_top_k = SamplerParams { top_k: 0, ..all.clone() };
    let mirostat = SamplerParams { mirostat: 2, ..Default::default() };
    for params in [SamplerParams::greedy(), plain(), all, no_top_k, mirostat] {
        for logits in rows {
            let mut s = sampler(&params, 2);
            let error = s.sample(logits, &[0, 1, 0, 1, 0]).expect_err("nothing to choose");
            assert!(matches!(error, Error::Logits(_)), "{error:?}");
            assert!(s.distribution(logits, &[]).is_err());
        }
        let mut s = sampler(&params, 3);
        let error = s.sample(&[0.0; 2], &[]).expect_err("a row of another size");
        assert!(error.to_string().contains("2 logits were given to a sampler for 3 tokens"));
    }
    let banned = SamplerParams { logit_bias: vec![(0, f32::NEG_INFINITY)], ..plain() };
    assert!(sampler(&banned, 1).sample(&[5.0], &[]).is_err());
}

#[test]
fn extreme_logits_never_panic_and_never_draw_what_is_impossible() {
    let values =
        [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -f32::MAX, 0.0, -0.0, 1e-45];
    let base = SamplerParams { seed: Some(1), ..Default::default() };
    let extreme = SamplerParams {
        top_k: 0,
        temp: 1e-40,
        typ_p: 0.5,
        top_n_sigma: 1e-30,
        xtc_probability: 1.0,
        xtc_threshold: 0.0,
        penalty_repeat: 1e30,
        penalty_freq: -f32::MAX,
        penalty_last_n: usize::MAX,
        dry_multiplier: f32::MAX,
        dry_base: f32::MAX,
        dry_allowed_length: 0,
        dry_penalty_last_n: usize::MAX,
        min_keep: usize::MAX,
        order: Stage::ALL.into_iter().rev().chain(Stage::ALL).collect(),
        ..base.clone()
    };
    let dynamic =
        SamplerParams { dynatemp_range: f32::MAX, dynatemp_exponent: 0.0, ..extreme.clone() };
    let mirostat = SamplerParams { mirostat: 2, mirostat_eta: f32::MAX, ..base.clone() };
    for params in [base, extreme, dynamic, mirostat] {
        let mut drawn = 0;
        for code in 0..values.len().pow(4) {
            let logits: Vec<f32> =
                (0..4).map(|i| values[code / values.len().pow(i) % values.len()]).collect();
            let mut s = sampler(&params, 4);
            for history in [&[][..], &[0, 1, 0, 1, 0, u32::MAX, 0]] {
                if let Ok(token) = s.sample(&logits, history) {
                    let logit = logits[token as usize];
                    assert!(logit > f32::NEG_INFINITY, "{logits:?} drew {token}");
                    drawn += 1;
                }
            }
        }
        assert!(drawn > 100, "only {drawn} tokens drawn with {params:?}");
    }
}

#[test]
fn settings_outside_their_range_are_named_with_the_range() {
    let d = SamplerParams::default;
    let cases = [
        (SamplerParams { temp: -1.0, ..d() }, "temp is -1: must be a finite number, 0 or more"),
        (SamplerParams { temp: f32::NAN, ..d() }, "temp is NaN"),
        (SamplerParams { top_p: 1.5, ..d() }, "top_p is 1.5: must be from 0 to 1"),
        (SamplerParams { min_p: -0.1, ..d() }, "min_p is -0.1"),
        (SamplerParams { typ_p: 2.0, ..d() }, "typ_p is 2"),
        (SamplerParams { top_n_sigma: f32::INFINITY, ..d() }, "top_n_sigma is inf"),
        (SamplerParams { xtc_probability: 7.0, ..d() }, "xtc_probability is 7"),
        (SamplerParams { xtc_threshold: -1.0, ..d() }, "xtc_threshold is -1"),
        (
            SamplerParams { penalty_repeat: 0.0, ..d() },
            "penalty_repeat is 0: must be a finite number above 0",
        ),
        (SamplerParams { penalty_freq: f32::NAN, ..d() }, "penalty_freq is NaN"),
        (
            SamplerParams { dry_base: 0.5, ..d() },
            "dry_base is 0.5: must be a finite number, 1 or more",
        ),
        (SamplerParams { mirostat: 1, ..d() }, "mirostat is 1: must be 0 (off) or 2"),
        (SamplerParams { mirostat_tau: -1.0, ..d() }, "mirostat_tau is -1"),
        (SamplerParams { logit_bias: vec![(9, 1.0)], ..d() }, "names token 9: must be below 8"),
        (SamplerParams { logit_bias: vec![(1, f32::NAN)], ..d() }, "logit_bias of token 1 is NaN"),
    ];
    for (params, want) in cases {
        let error = Sampler::new(&params, 8, DryBreakers::none()).expect_err(want);
        assert!(matches!(error, Error::Invalid(_)));
        assert!(error.to_string().contains(want), "{error} does not say {want:?}");
    }
    assert!(Sampler::new(&d(), 0, DryBreakers::none()).is_err());
    let error = "topk".parse::<Stage>().expect_err("unknown").to_string();
    assert!(error.contains("top_k") && error.contains("temperature"), "{error}");
}

#[test]
fn dry_sees_no_repetition_across_a_breaker() {
    let params = SamplerParams { dry_multiplier: 1.0, order: vec![Stage::Dry], ..plain() };
    let history = [1, 2, 3, 4, 1, 2, 3];
    let after = |breakers: DryBreakers| {
        let mut s = Sampler::new(&params, 6, breakers).expect("valid");
        let d = s.distribution(&[0.0; 6], &history).expect("tokens");
        d.iter().find(|c| c.0 == 4).expect("token 4").1 < 0.15
    };
    assert!(after(DryBreakers::none()), "4 would repeat 1 2 3 4");
    assert!(after(DryBreakers::from_sequences([(5, vec![])])), "a breaker that is not there");
    assert!(!after(DryBreakers::from_sequences([(2, vec![])])), "only 3 repeats after 2");
    assert!(!after(DryBreakers::from_sequences([(2, vec![3])])), "2 3 breaks");
    assert!(after(DryBreakers::from_sequences([(2, vec![1])])), "2 1 does not stand there");
    assert!(!after(DryBreakers::from_sequences([(4, vec![])])), "a breaker is never penalized");
}

#[test]
fn log_probabilities_are_those_of_an_exact_softmax() {
    let logits = row(262_144, 3, 1.0);
    let max = logits.iter().copied().fold(f32::MIN, f32::max);
    let sum: f64 = logits.iter().map(|&x| libm::exp(f64::from(x) - f64::from(max))).sum();
    let exact = f64::from(max) + libm::log(sum);
    assert!((LogProbs::log_sum_exp(&logits) - exact).abs() < 1e-7);

    let mut lp = LogProbs::new(logits.len()).unwrap();
    let top = lp.top(&logits, 5).to_vec();
    assert_eq!(top.len(), 5);
    assert!(top.is_sorted_by(|a, b| a.1 >= b.1));
    for (id, p) in top {
        assert_eq!(p, lp.of(&logits, id));
    }
    assert_eq!(lp.of(&[f32::NAN, 0.0], 0), f64::NEG_INFINITY);
    assert_eq!(lp.of(&[0.0], 9), f64::NEG_INFINITY);
    assert_eq!(LogProbs::new(2).unwrap().top(&[f32::NAN, 0.0], 2), [(1, 0.0)]);
    assert_eq!(LogProbs::log_sum_exp(&[f32::NAN]), f64::NEG_INFINITY);
}

/// What a matcher that sees the whole text shows: everything before the stop string that is
/// complete first.
fn shown(text: &str, stops: &[&str]) -> (String, bool) {
    let first_end = stops.iter().filter_map(|s| text.find(s).map(|i| i + s.len())).min();
    match first_end {
        None => (text.to_string(), false),
        Some(end) => {
            let head = &text[..end];
            let longest =
                stops.iter().filter(|s| head.ends_with(**s)).map(|s| s.len()).max().unwrap_or(0);
            (head[..end - longest].to_string(), true)
        }
    }
}

#[test]
fn stop_strings_are_found_however_the_text_is_cut() {
    let stop_sets: [&[&str]; 7] = [
        &[],
        &["ab"],
        &["aab", "ba"],
        &["abab", "bb", "aaaa"],
        &["é", "aé"],
        &["日本", "本日本"],
        &["aaab", "aab", "ab"],
    ];
    let letters = ["a", "b", "é", "日", "本", "\n"];
    let mut state = 1u32;
    let mut random = |n: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as usize % n
    };
    for _ in 0..3000 {
        let text: String = (0..random(14)).map(|_| letters[random(letters.len())]).collect();
        for stops in stop_sets {
            let mut matcher = StopStrings::new(stops).expect("valid");
            let mut out = String::new();
            let mut stopped = false;
            let mut piece = String::new();
            for c in text.chars() {
                piece.push(c);
                if random(2) == 0 {
                    stopped |= matcher.push(&piece, &mut out).is_some();
                    piece.clear();
                    assert!(shown(&text, stops).0.starts_with(&out), "showed too much: {out:?}");
                }
            }
            stopped |= matcher.push(&piece, &mut out).is_some();
            matcher.finish(&mut out);
            assert_eq!((out, stopped), shown(&text, stops), "{text:?} {stops:?}");
        }
    }
}

#[test]
fn no_more_text_is_held_back_than_could_begin_a_stop_string() {
    let mut matcher = StopStrings::new(["<|end|>"]).expect("valid");
    let mut out = String::new();
    for (piece, want) in [
        ("a <", "a "),
        ("|e", "a "),
        ("x", "a <|ex"),
        ("<<|", "a <|ex<"),
        ("|", "a <|ex<<||"),
        ("<|end|", "a <|ex<<||"),
    ] {
        assert_eq!(matcher.push(piece, &mut out), None);
        assert_eq!(out, want, "after {piece:?}");
    }
    assert_eq!(matcher.push(">tail", &mut out), Some(0));
    assert_eq!(matcher.push("more", &mut out), Some(0));
    matcher.finish(&mut out);
    assert_eq!(out, "a <|ex<<||");
    matcher.reset();
    assert_eq!(matcher.push("again", &mut out), None);
    assert!(StopStrings::new([""]).is_err());
}

#[test]
fn stop_strings_take_linear_time_on_text_that_nearly_matches() {
    let stop = "a".repeat(10_000) + "b";
    let mut matcher = StopStrings::new([stop]).expect("valid");
    let mut out = String::new();
    let piece = "a".repeat(1000);
    for _ in 0..1000 {
        assert_eq!(matcher.push(&piece, &mut out), None);
    }
    assert_eq!(out.len(), 1_000_000 - 10_000);
}
