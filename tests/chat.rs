//! What chat templates promise.

mod llama_cpp;

use serde_json::{Map, Value};
use siskin::Error;
use siskin::chat::{ChatTemplate, Message, RenderOptions};
use std::path::PathBuf;

const CASES: &str = include_str!("data/templates/cases.json");

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON of this repository")
}

fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().expect("an object")
}

fn messages(list: &Value) -> Vec<Message> {
    let list = list.as_array().expect("a list of messages").iter();
    list.map(|m| {
        let mut extra = object(m).clone();
        extra.remove("role");
        let content = match extra.get("content") {
            Some(Value::String(_)) => extra.remove("content"),
            _ => None,
        };
        let text = |v: Option<&Value>| v.and_then(Value::as_str).unwrap_or_default().to_string();
        Message { role: text(m.get("role")), content: text(content.as_ref()), extra }
    })
    .collect()
}

/// The messages and options of a case of record.py.
fn case(name: &str) -> (Vec<Message>, RenderOptions) {
    let all = json(CASES);
    let case = &all["cases"][name];
    let mut options = RenderOptions {
        bos_token: Some("<s>".to_string()),
        eos_token: Some("</s>".to_string()),
        now: all["now"].as_i64(),
        ..Default::default()
    };
    for (name, value) in object(&case[1]) {
        match name.as_str() {
            "add_generation_prompt" => {
                options.add_generation_prompt = value.as_bool().expect("a flag");
            }
            "tools" => options.tools = Some(value.clone()),
            "documents" => options.documents = Some(value.clone()),
            _ => {
                options.kwargs.insert(name.clone(), value.clone());
            }
        }
    }
    (messages(&case[0]), options)
}

fn fnv(text: &str) -> String {
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

/// The variables of expressions.txt.
fn expression_options() -> RenderOptions {
    let conversation = json(CASES)["cases"]["conversation"][0].clone();
    let (_, mut options) = case("tools");
    let tools = options.tools.take().expect("tools");
    for (name, value) in [
        ("s", Value::from("héllo wörld")),
        ("l", serde_json::json!([3, 1, 2])),
        ("d", serde_json::json!({"b": 1, "a": [null, true, "x'y"]})),
        ("n", Value::Null),
        ("f", serde_json::json!(1.5)),
        ("m", conversation),
        ("t", tools),
    ] {
        options.kwargs.insert(name.to_string(), value);
    }
    options
}

#[test]
fn expressions_mean_what_they_mean_in_python() {
    let all = json(include_str!("data/templates/expressions.json"));
    let options = expression_options();
    let mut wrong = Vec::new();
    for (source, want) in object(&all) {
        let got = ChatTemplate::new(source, "line").and_then(|t| t.render(&[], &options));
        match (&got, want.as_str()) {
            (Ok(got), Some(want)) if got == want => {}
            (Err(_), None) => {}
            _ => wrong.push(format!("{source}\n  got  {got:?}\n  want {want:?}")),
        }
    }
    assert!(wrong.is_empty(), "{} of {}\n{}", wrong.len(), object(&all).len(), wrong.join("\n"));
}

#[test]
fn built_in_templates_are_those_of_llama_cpp() {
    let all = json(include_str!("data/templates/builtin.json"));
    let names: Vec<&str> = ChatTemplate::builtin_names().collect();
    let want: Vec<&String> = object(&all["templates"]).keys().collect();
    assert_eq!(names, want);
    let mut wrong = Vec::new();
    for (name, cases) in object(&all["templates"]) {
        let template = ChatTemplate::builtin(name).unwrap_or_else(|| panic!("{name} compiles"));
        for (case, want) in object(cases) {
            let conversation = &all["conversations"][case];
            let options = RenderOptions {
                add_generation_prompt: conversation[1]["add_generation_prompt"] != false,
                ..Default::default()
            };
            let got = template.render(&messages(&conversation[0]), &options);
            if got.as_deref().ok() != want.as_str() {
                wrong.push(format!("{name}, {case}\n  got  {got:?}\n  want {want:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(ChatTemplate::builtin("nothing").is_none());
}

#[test]
fn templates_of_the_offline_models_render_as_transformers_renders_them() {
    let sources = [
        ("SmolLM2-135M-Instruct.jinja", include_str!("data/templates/SmolLM2-135M-Instruct.jinja")),
        (
            "Qwen2.5-Coder-0.5B-Instruct.jinja",
            include_str!("data/templates/Qwen2.5-Coder-0.5B-Instruct.jinja"),
        ),
    ];
    let all = json(include_str!("data/templates/expected.json"));
    for (name, source) in sources {
        let template = ChatTemplate::new(source, name).expect("compiles");
        for (case_name, want) in object(&all[name]) {
            let (messages, options) = case(case_name);
            let got = template.render(&messages, &options);
            match want["text"].as_str() {
                Some(want) => assert_eq!(got.expect(case_name), want, "{name}, {case_name}"),
                None if want["error"].is_string() => {}
                None => assert!(got.is_err(), "{name}, {case_name}: {got:?}"),
            }
        }
    }
}

/// The templates are those of the folder that `SISKIN_TEST_TEMPLATES` names, or of llama.cpp's
/// source: they are third parties' and not in this repository.
#[test]
fn templates_of_many_models_render_as_transformers_renders_them() {
    let folder = match std::env::var_os("SISKIN_TEST_TEMPLATES") {
        Some(folder) => PathBuf::from(folder),
        None => match llama_cpp::folder() {
            Some(folder) => folder.join("templates"),
            None => return,
        },
    };
    let all = json(include_str!("data/templates/third_party.json"));
    let mut wrong = Vec::new();
    let mut compared = 0;
    for (file, recorded) in object(&all) {
        let Ok(source) = std::fs::read_to_string(folder.join(file)) else {
            wrong.push(format!("{file}: cannot be read"));
            continue;
        };
        if recorded["source"] != fnv(&source) {
            wrong.push(format!("{file}: is not the version that was recorded"));
            continue;
        }
        let template = match ChatTemplate::new(&source, file) {
            Ok(template) => template,
            Err(e) => {
                wrong.push(e.to_string());
                continue;
            }
        };
        for (name, want) in object(&recorded["cases"]) {
            let (messages, options) = case(name);
            let got = template.render(&messages, &options);
            compared += 1;
            let got_hash = got.as_ref().map_or("refusal".to_string(), |text| fnv(text));
            // Where Python fails on a mistake of the template, as iterating over None, minijinja
            // may well go on.
            let same = *want == got_hash || *want == "error" || (*want == "escaped" && got.is_ok());
            if !same {
                wrong.push(format!("{file}, {name}: {got_hash}, not {want}: {got:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {compared}\n{}", wrong.len(), wrong.join("\n"));
    assert!(compared > 500, "only {compared} renderings compared");
}

fn render(source: &str) -> siskin::Result<String> {
    ChatTemplate::new(source, "hostile.jinja")?
        .render(&[Message::user("hello")], &RenderOptions::default())
}

#[test]
fn hostile_templates_end_with_an_error() {
    let nested = |open: &str, inner: &str, close: &str, n: usize| {
        format!("{}{inner}{}", open.repeat(n), close.repeat(n))
    };
    let doubling = |step: &str, use_it: &str| {
        format!("{{% set x = [1] %}}{}{use_it}", format!("{{% set x = {step} %}}").repeat(60))
    };
    let through_namespace = |value: &str, use_it: &str| {
        format!(
            "{{% set ns = namespace(x=[]) %}}{{% for i in range(90000) %}}\
             {{% set ns.x = {value} %}}{{% endfor %}}{use_it}"
        )
    };
    let macro_of = |argument: &str| {
        format!(
            "{{% macro f(x, n) %}}{{% if n == 0 %}}{{{{ x ~ '' }}}}{{% else %}}\
             {{{{ f({argument}, n - 1) }}}}{{% endif %}}{{% endmacro %}}{{{{ f([1], 40) }}}}"
        )
    };
    let cases = [
        ("endless loops", "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}".to_string()),
        ("endless macros", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}".to_string()),
        ("two macros", "{% macro f() %}{{ g() }}{% endmacro %}{% macro g() %}{{ f() }}{% endmacro %}{{ f() }}".to_string()),
        ("recursive loops", "{% for i in [[1]] recursive %}{{ loop([i]) }}{% endfor %}".to_string()),
        ("a range", "{{ range(1000000000)|list }}".to_string()),
        ("a long string", "{{ 'a' * 1000000000 }}".to_string()),
        ("strings of strings", "{% set s = 'abcdefgh' %}".to_string() + &"{% set s = s ~ s ~ s ~ s %}".repeat(30)),
        ("replacements", format!("{{% set s = 'aaaaaaaa' %}}{}", "{% set s = s.replace('a', s) %}".repeat(9))),
        ("joins", format!("{{% set s = 'aaaaaaaa' %}}{}", "{% set s = s.join(s) %}".repeat(9))),
        ("a wide format", "{{ '{:>1000000000}'.format(1) }}".to_string()),
        ("a wide nested format", "{{ '{:{}}'.format(1, 1000000000) }}".to_string()),
        ("a wide % format", "{{ '%1000000000d'|format(1) }}".to_string()),
        ("indentation", "{{ 'a\nb'|indent(1000000000) }}".to_string()),
        ("batches", "{{ [1]|batch(1000000000, 'x')|list }}".to_string()),
        ("slices", "{{ [1]|slice(1000000000)|list }}".to_string()),
        ("parentheses", nested("(", "1", ")", 40_000)),
        ("brackets", nested("{{ ", &nested("[", "", "]", 20_000), " }}", 1)),
        ("blocks", nested("{% if true %}", "", "{% endif %}", 10_000)),
        ("negations", format!("{{{{ {}1 }}}}", "not ".repeat(30_000))),
        ("signs", format!("{{{{ {}1 }}}}", "-".repeat(30_000))),
        ("sums", format!("{{{{ 1{} }}}}", "+1".repeat(30_000))),
        ("attributes", format!("{{{{ x{} }}}}", ".a".repeat(30_000))),
        ("subscripts", format!("{{{{ x{} }}}}", "[0]".repeat(30_000))),
        ("filters", format!("{{{{ 1{} }}}}", "|string".repeat(30_000))),
        ("choices", format!("{{{{ 1{} }}}}", " if 1 else 1".repeat(10_000))),
        ("elifs", format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(10_000))),
        ("a long source", " ".repeat(1 << 20)),
        ("doubled lists", doubling("[x, x]", "{{ x }}")),
        ("doubled maps", doubling("{'a': x, 'b': x}", "{{ x|tojson }}")),
        ("doubled tuples", doubling("x, x", "{{ x ~ '' }}")),
        ("doubled tuples in parentheses", doubling("(x, x)", "{{ x|string }}")),
        ("added lists", doubling("x + x", "{{ x|length }}")),
        ("chained lists", doubling("x|chain(x)", "{{ x|list|length }}")),
        ("zipped lists", doubling("x|zip(x)|list", "{{ x }}")),
        ("batched lists", doubling("[1]|batch(9, x)|list", "{{ x }}")),
        ("mapped lists", doubling("[[x, x]]|map('list')|list", "{{ x == [] }}")),
        ("dict()", doubling("dict(a=x, b=x)", "{{ x }}")),
        ("namespaces in namespaces", doubling("namespace(a=x, b=x)", "{{ x }}")),
        ("summed lists", doubling("[x, x]|sum(start=[])", "{{ x }}")),
        ("repeated lists", "{{ [[[[1] * 1000] * 1000] * 1000] * 1000 }}".to_string()),
        ("lists repeated from the left", "{{ 1000 * [1000 * [1000 * [1]]] }}".to_string()),
        ("a list in a factor", "{% set x = [1] %}{{ 1000 * x[0:][0:] }}".to_string()),
        ("nesting through a namespace", through_namespace("[ns.x]", "{{ ns.x }}")),
        ("doubling through a namespace", through_namespace("ns.x + ns.x + [1]", "{{ ns.x|length }}")),
        ("a namespace in itself", "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}".to_string()),
        ("a namespace in a list in itself", "{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns }}".to_string()),
        ("two namespaces", "{% set a = namespace() %}{% set b = namespace(a=a) %}{% set a.b = b %}{{ a }}".to_string()),
        ("macros that nest", macro_of("[x, x]")),
        ("macros that add", macro_of("x + x")),
        ("macros that chain", macro_of("x|chain(x)")),
        ("a call with itself", "{% macro f() %}{{ caller() }}{% endmacro %}{% macro g() %}{% call f() %}{{ g() }}{% endcall %}{% endmacro %}{{ g() }}".to_string()),
        ("no end of a tag", "{{ 1".to_string()),
        ("no end of a string", "{{ 'a }}".to_string()),
        ("no end of a block", "{% if 1 %}".to_string()),
        ("a stray bracket", "{{ ) }}".to_string()),
        ("crossed brackets", "{{ ([)] }}".to_string()),
        ("an unknown tag", "{% launch %}".to_string()),
        ("an unknown filter", "{{ 1|launch }}".to_string()),
        ("an include", "{% include 'chat' %}".to_string()),
        ("an import", "{% import 'chat' as c %}{{ c }}".to_string()),
    ];
    for (name, source) in cases {
        let source = if name == "parentheses" { format!("{{{{ {source} }}}}") } else { source };
        let error = render(&source).map(|text| text.len()).expect_err(name);
        let Error::Template(message) = &error else { panic!("{name}: {error:?}") };
        assert!(message.starts_with("hostile.jinja: line "), "{name}: {message}");
        assert!(message.len() < 1000, "{name}: {} bytes of message", message.len());
        // Seconds where it takes milliseconds, for a slow and busy machine.
    }
}

#[test]
fn an_error_names_template_line_and_reason() {
    let cases = [
        ("\n\n{{ raise_exception('Roles must alternate') }}", "line 3: Roles must alternate"),
        ("a\n{{ x.y.z }}", "line 2: undefined value"),
        ("\n{% if %}", "line 2: "),
        ("{{ 1|nothing }}", "line 1: unknown filter: filter nothing is unknown"),
        (
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
            "line 1: takes more steps",
        ),
    ];
    for (source, want) in cases {
        let error = render(source).expect_err(want).to_string();
        assert!(error.starts_with("chat template: hostile.jinja: "), "{error}");
        assert!(error.contains(want), "{error} does not say {want:?}");
    }
    let deep = (0..100).fold(Value::Null, |inner, _| Value::Array(vec![inner]));
    let template = ChatTemplate::builtin("chatml").expect("built in");
    let message = Message::user("x").with("tool_calls", deep);
    let error = template.render(&[message], &RenderOptions::default()).expect_err("too deep");
    assert!(error.to_string().contains("nested"), "{error}");
}

#[test]
fn a_long_conversation_is_not_taken_for_an_attack() {
    let text = "All work and no play makes a dull text. ".repeat(25);
    let messages: Vec<Message> = (0..1001)
        .map(|i| Message::new(if i % 2 == 0 { "user" } else { "assistant" }, text.as_str()))
        .collect();
    for source in [
        include_str!("data/templates/SmolLM2-135M-Instruct.jinja"),
        include_str!("data/templates/Qwen2.5-Coder-0.5B-Instruct.jinja"),
        "{% set ns = namespace(text='') %}{% for m in messages %}{% set ns.text = ns.text ~ '.' %}\
         {% set rest = messages[1:] %}{{ m.content }}{% endfor %}{{ ns.text }}",
    ] {
        let template = ChatTemplate::new(source, "long").expect("compiles");
        let prompt = template.render(&messages, &RenderOptions::default()).expect("renders");
        assert!(prompt.len() > 1_000_000);
    }
}

#[test]
fn messages_and_options_reach_the_template() {
    let source = "{{ messages[0].name }} {{ messages[1].content is none }} {{ flag }} \
                  {{ bos_token is defined }} {{ tools is none }} {{ strftime_now('%Y') }}";
    let messages = [
        Message::user("x").with("name", "Ann"),
        Message::assistant("").with("content", Value::Null),
    ];
    let mut options = RenderOptions { now: Some(0), ..Default::default() };
    options.kwargs.insert("flag".to_string(), Value::from(7));
    let template = ChatTemplate::new(source, "own").expect("compiles");
    let text = template.render(&messages, &options).expect("renders");
    assert_eq!(text, "Ann True 7 False True 1970");
    assert_eq!((template.name(), template.source()), ("own", source));
    fn shared<T: Send + Sync>(_: &T) {}
    shared(&template);
}

#[test]
fn mutated_templates_give_text_or_an_error() {
    const MUTANTS: usize = 4000;

    let mut corpus: Vec<String> = ChatTemplate::builtin_names()
        .filter_map(ChatTemplate::builtin)
        .map(|t| t.source().to_string())
        .collect();
    let expressions = include_str!("data/templates/expressions.txt");
    corpus.extend(expressions.lines().filter(|l| !l.starts_with('#')).map(String::from));
    corpus.push(include_str!("data/templates/SmolLM2-135M-Instruct.jinja").to_string());
    corpus.push(include_str!("data/templates/Qwen2.5-Coder-0.5B-Instruct.jinja").to_string());
    let (messages, _) = case("tool call");
    let options = expression_options();

    let mut state: u64 =
        std::env::var("SISKIN_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    let mut random = |n: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n.max(1)
    };
    let mut rendered = 0;
    for _ in 0..MUTANTS {
        let mut text: Vec<char> = corpus[random(corpus.len())].chars().collect();
        for _ in 0..1 + random(3) {
            let at = random(text.len());
            let end = (at + random(40)).min(text.len());
            match random(4) {
                0 => drop(text.drain(at..end)),
                1 => {
                    let copy = text[at..end].repeat(1 + random(3));
                    text.splice(at..at, copy);
                }
                2 => {
                    let other: Vec<char> = corpus[random(corpus.len())].chars().collect();
                    let from = random(other.len());
                    let to = (from + random(60)).min(other.len());
                    text.splice(at..end, other[from..to].iter().copied());
                }
                _ => {
                    let signs: Vec<char> = "{}%[]()'\"|.,:=+-*~#\\ é0n".chars().collect();
                    text.splice(at..end.min(at + 1), [signs[random(signs.len())]]);
                }
            }
        }
        let source: String = text.into_iter().collect();
        if let Ok(template) = ChatTemplate::new(&source, "mutated") {
            rendered += usize::from(template.render(&messages, &options).is_ok());
        }
    }
    assert!(rendered > MUTANTS / 20, "only {rendered} of {MUTANTS} still render");
}
