//! Any text as a chat template: it renders, or the error names template, line and reason, within
//! bounded time and memory (run it with `-timeout=10 -rss_limit_mb=1024`).
#![no_main]

use libfuzzer_sys::fuzz_target;
use siskin::Error;
use siskin::chat::{ChatTemplate, Message, RenderOptions};

fuzz_target!(|data: &[u8]| {
    let source = String::from_utf8_lossy(data);
    let call = serde_json::json!([{"function": {"name": "f", "arguments": {"x": [1, 2.5, null]}}}]);
    let messages = [
        Message::system("Be brief."),
        Message::user("<b> \"quoted\" é"),
        Message::assistant("").with("tool_calls", call),
        Message::new("tool", "{}"),
        Message::user("?"),
    ];
    let mut options = RenderOptions {
        bos_token: Some("<s>".to_string()),
        now: Some(1_750_000_000),
        tools: Some(serde_json::json!([{"type": "function", "function": {"name": "f"}}])),
        ..Default::default()
    };
    options.kwargs.insert("enable_thinking".to_string(), false.into());
    let result = ChatTemplate::new(&source, "fuzz").and_then(|t| t.render(&messages, &options));
    match result {
        Ok(_) => {}
        Err(Error::Template(reason)) => assert!(reason.starts_with("fuzz: "), "{reason}"),
        Err(other) => panic!("{other:?}"),
    }
});
