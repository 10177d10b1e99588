//! Templates by name, for a file that has none or a wrong one.
//!
//! The names and the prompts are those of llama.cpp's `--chat-template NAME`; tests/chat.rs
//! compares with what llama.cpp makes. As there, none begins with the beginning-of-sequence token:
//! the tokenizer adds that.

/// A template that writes each message `m`, then `$prompt` if the assistant is to answer.
macro_rules! chat {
    ($each:expr, $prompt:expr) => {
        chat!("", $each, $prompt)
    };
    ($head:expr, $each:expr, $prompt:expr) => {
        concat!(
            $head,
            "{% for m in messages %}",
            $each,
            "{% endfor %}{% if add_generation_prompt %}{{ ",
            $prompt,
            " }}{% endif %}"
        )
    };
}

/// `$each` for a message of the system, of the user, of the assistant.
macro_rules! by_role {
    ($system:expr, $user:expr, $assistant:expr) => {
        concat!(
            "{% if m.role == 'system' %}{{ ",
            $system,
            " }}{% elif m.role == 'user' %}{{ ",
            $user,
            " }}{% elif m.role == 'assistant' %}{{ ",
            $assistant,
            " }}{% endif %}"
        )
    };
}

/// Llama 2 and its variants: how a message begins, what a system message becomes, and how a later
/// turn begins.
macro_rules! llama2 {
    ($content:expr, $system:expr, $turn:expr) => {
        concat!(
            "{{ '[INST] ' }}{% set ns = namespace(inside=true) %}{% for m in messages %}",
            "{% set content = ",
            $content,
            " %}{% if not ns.inside %}{% set ns.inside = true %}{{ '",
            $turn,
            "' }}{% endif %}{% if m.role == 'system' %}{{ ",
            $system,
            " }}{% elif m.role == 'user' %}{{ content + ' [/INST]' }}{% else %}",
            "{{ content + '</s>' }}{% set ns.inside = false %}{% endif %}{% endfor %}"
        )
    };
}

/// Mistral before v7: what stands before `[INST]`, what after it, and the assistant's content.
macro_rules! mistral {
    ($before:expr, $after:expr, $content:expr) => {
        concat!(
            "{% set ns = namespace(inside=false) %}{% for m in messages %}",
            "{% if not ns.inside %}{% set ns.inside = true %}{{ '",
            $before,
            "[INST]",
            $after,
            "' }}{% endif %}{% if m.role == 'system' %}{{ m.content + '\\n\\n' }}",
            "{% elif m.role == 'user' %}{{ m.content + '",
            $before,
            "[/INST]' }}{% else %}{{ '",
            $after,
            "' + ",
            $content,
            " + '</s>' }}{% set ns.inside = false %}{% endif %}{% endfor %}"
        )
    };
}

/// Mistral v7: what stands before a content.
macro_rules! mistral_v7 {
    ($space:expr) => {
        concat!(
            "{% for m in messages %}{% if m.role == 'system' %}{{ '[SYSTEM_PROMPT]",
            $space,
            "' + m.content + '[/SYSTEM_PROMPT]' }}{% elif m.role == 'user' %}{{ '[INST]",
            $space,
            "' + m.content + '[/INST]' }}{% else %}{{ '",
            $space,
            "' + m.content + '</s>' }}{% endif %}{% endfor %}"
        )
    };
}

const GRANITE_4: &str = chat!(
    "{{ '<|start_of_role|>' + ('assistant<|end_of_role|><|tool_call|>' if m.role == 'assistant_tool_call' else m.role + '<|end_of_role|>') + m.content + '<|end_of_text|>\\n' }}",
    "'<|start_of_role|>assistant<|end_of_role|>'"
);

/// EXAONE 3, and what later ones add for each message.
macro_rules! exaone {
    ($more:expr) => {
        chat!(
            concat!(
                by_role!(
                    "'[|system|]' + m.content|trim + '[|endofturn|]\\n'",
                    "'[|user|]' + m.content|trim + '\\n'",
                    "'[|assistant|]' + m.content|trim + '[|endofturn|]\\n'"
                ),
                $more
            ),
            "'[|assistant|]'"
        )
    };
}

/// Names and sources, by name.
pub(super) const TEMPLATES: &[(&str, &str)] = &[
    (
        "bailing",
        chat!(
            "{{ '<role>' + ('HUMAN' if m.role == 'user' else m.role|upper) + '</role>' + m.content }}",
            "'<role>ASSISTANT</role>'"
        ),
    ),
    (
        "bailing-think",
        chat!(
            "{{ '<role>' + ('HUMAN' if m.role == 'user' else m.role|upper) + '</role>' + m.content }}",
            "'<role>ASSISTANT</role><think>'"
        ),
    ),
    (
        "bailing2",
        chat!(
            "{% if not messages or messages[0].role != 'system' %}{{ '<role>SYSTEM</role>detailed thinking off<|role_end|>' }}{% endif %}",
            "{{ '<role>' + ('HUMAN' if m.role == 'user' else m.role|upper) + '</role>' + m.content + '<|role_end|>' }}",
            "'<role>ASSISTANT</role>'"
        ),
    ),
    (
        "chatglm3",
        chat!("[gMASK]sop", "{{ '<|' + m.role + '|>\\n ' + m.content }}", "'<|assistant|>'"),
    ),
    (
        "chatglm4",
        chat!("[gMASK]<sop>", "{{ '<|' + m.role + '|>\\n' + m.content }}", "'<|assistant|>\\n'"),
    ),
    (
        "chatml",
        chat!(
            "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}",
            "'<|im_start|>assistant\\n'"
        ),
    ),
    (
        "command-r",
        chat!(
            by_role!(
                "'<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>' + m.content|trim + '<|END_OF_TURN_TOKEN|>'",
                "'<|START_OF_TURN_TOKEN|><|USER_TOKEN|>' + m.content|trim + '<|END_OF_TURN_TOKEN|>'",
                "'<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' + m.content|trim + '<|END_OF_TURN_TOKEN|>'"
            ),
            "'<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>'"
        ),
    ),
    (
        "deepseek",
        chat!(
            by_role!(
                "m.content",
                "'### Instruction:\\n' + m.content + '\\n'",
                "'### Response:\\n' + m.content + '\\n<|EOT|>\\n'"
            ),
            "'### Response:\\n'"
        ),
    ),
    ("deepseek-ocr", "{% for m in messages %}{{ m.content }}{% endfor %}"),
    (
        "deepseek2",
        chat!(
            by_role!(
                "m.content + '\\n\\n'",
                "'User: ' + m.content + '\\n\\n'",
                "'Assistant: ' + m.content + '<｜end▁of▁sentence｜>'"
            ),
            "'Assistant:'"
        ),
    ),
    (
        "deepseek3",
        chat!(
            by_role!(
                "m.content + '\\n\\n'",
                "'<｜User｜>' + m.content",
                "'<｜Assistant｜>' + m.content + '<｜end▁of▁sentence｜>'"
            ),
            "'<｜Assistant｜>'"
        ),
    ),
    (
        "exaone-moe",
        chat!(
            "{{ '<|' + m.role + '|>\\n' + m.content|trim + '<|endofturn|>\\n' }}",
            "'<|assistant|>\\n'"
        ),
    ),
    ("exaone3", exaone!("")),
    (
        "exaone4",
        exaone!(
            "{% if m.role == 'tool' %}{{ '[|tool|]' + m.content|trim + '[|endofturn|]\\n' }}{% endif %}"
        ),
    ),
    ("falcon3", chat!("{{ '<|' + m.role + '|>\\n' + m.content + '\\n' }}", "'<|assistant|>\\n'")),
    (
        "gemma",
        concat!(
            "{% set ns = namespace(system='') %}{% for m in messages %}",
            "{% if m.role == 'system' %}{% set ns.system = ns.system + m.content|trim %}{% else %}",
            "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' }}",
            "{% if ns.system and m.role != 'assistant' %}{{ ns.system + '\\n\\n' }}",
            "{% set ns.system = '' %}{% endif %}",
            "{{ m.content|trim + '<end_of_turn>\\n' }}{% endif %}{% endfor %}",
            "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
        ),
    ),
    (
        "gigachat",
        chat!(
            "{{ '<s>' }}{% if messages and messages[0].role == 'system' %}{{ messages[0].content + '<|message_sep|>' }}{% endif %}",
            by_role!(
                "''",
                "'user<|role_sep|>' + m.content + '<|message_sep|>available functions<|role_sep|>[]<|message_sep|>'",
                "'assistant<|role_sep|>' + m.content + '<|message_sep|>'"
            ),
            "'assistant<|role_sep|>'"
        ),
    ),
    ("glmedge", chat!("{{ '<|' + m.role + '|>\\n' + m.content }}", "'<|assistant|>'")),
    (
        "gpt-oss",
        chat!(
            "{{ '<|start|>' + m.role + '<|message|>' + m.content + ('<|return|>' if m.role == 'assistant' else '<|end|>') }}",
            "'<|start|>assistant'"
        ),
    ),
    (
        "granite",
        chat!(
            "{{ '<|start_of_role|>' + m.role + '<|end_of_role|>' + ('<|tool_call|>' if m.role == 'assistant_tool_call' else '') + m.content + '<|end_of_text|>\\n' }}",
            "'<|start_of_role|>assistant<|end_of_role|>'"
        ),
    ),
    ("granite-4.0", GRANITE_4),
    ("granite-4.1", GRANITE_4),
    (
        "grok-2",
        chat!(
            by_role!(
                "'System: ' + m.content|trim + '<|separator|>\\n\\n'",
                "'Human: ' + m.content|trim + '<|separator|>\\n\\n'",
                "'Assistant: ' + m.content + '<|separator|>\\n\\n'"
            ),
            "'Assistant:'"
        ),
    ),
    (
        "hunyuan-dense",
        concat!(
            "{% for m in messages %}",
            by_role!(
                "m.content + '<｜hy_place▁holder▁no▁3｜>' if loop.first else ''",
                "'<｜hy_User｜>' + m.content + '<｜hy_Assistant｜>'",
                "'<｜hy_Assistant｜>' + m.content + '<｜hy_place▁holder▁no▁2｜>'"
            ),
            "{% endfor %}"
        ),
    ),
    (
        "hunyuan-moe",
        concat!(
            "{% for m in messages %}{% if m.role == 'assistant' %}{{ m.content + '<|eos|>' }}",
            "{% else %}{{ '<|startoftext|>' + m.content + ('<|extra_4|>' if m.role == 'system' else '<|extra_0|>') }}",
            "{% endif %}{% endfor %}"
        ),
    ),
    (
        "hunyuan-vl",
        concat!(
            "{{ '<｜hy_begin▁of▁sentence｜>' }}{% for m in messages %}",
            by_role!(
                "m.content + '<｜hy_place▁holder▁no▁3｜>' if loop.first else ''",
                "m.content + '<｜hy_User｜>'",
                "m.content + '<｜hy_Assistant｜>'"
            ),
            "{% endfor %}"
        ),
    ),
    (
        "kimi-k2",
        chat!(
            concat!(
                by_role!(
                    "'<|im_system|>system<|im_middle|>'",
                    "'<|im_user|>user<|im_middle|>'",
                    "'<|im_assistant|>assistant<|im_middle|>'"
                ),
                "{% if m.role == 'tool' %}{{ '<|im_system|>tool<|im_middle|>' }}{% endif %}",
                "{{ m.content + '<|im_end|>' }}"
            ),
            "'<|im_assistant|>assistant<|im_middle|>'"
        ),
    ),
    ("llama2", llama2!("m.content", "content + '\\n'", "[INST] ")),
    ("llama2-sys", llama2!("m.content", "'<<SYS>>\\n' + content + '\\n<</SYS>>\\n\\n'", "[INST] ")),
    (
        "llama2-sys-bos",
        llama2!("m.content", "'<<SYS>>\\n' + content + '\\n<</SYS>>\\n\\n'", "<s>[INST] "),
    ),
    (
        "llama2-sys-strip",
        llama2!("m.content|trim", "'<<SYS>>\\n' + content + '\\n<</SYS>>\\n\\n'", "[INST] "),
    ),
    (
        "llama3",
        chat!(
            "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content|trim + '<|eot_id|>' }}",
            "'<|start_header_id|>assistant<|end_header_id|>\\n\\n'"
        ),
    ),
    (
        "llama4",
        chat!(
            "{{ '<|header_start|>' + m.role + '<|header_end|>\\n\\n' + m.content|trim + '<|eot|>' }}",
            "'<|header_start|>assistant<|header_end|>\\n\\n'"
        ),
    ),
    (
        "megrez",
        chat!(
            "{{ '<|role_start|>' + m.role + '<|role_end|>' + m.content + '<|turn_end|>' }}",
            "'<|role_start|>assistant<|role_end|>'"
        ),
    ),
    (
        "minicpm",
        concat!(
            "{% for m in messages %}{{ '<用户>' + m.content|trim + '<AI>' if m.role == 'user' ",
            "else m.content|trim }}{% endfor %}"
        ),
    ),
    ("mistral-v1", mistral!(" ", " ", "m.content")),
    ("mistral-v3", mistral!("", " ", "m.content|trim")),
    ("mistral-v3-tekken", mistral!("", "", "m.content")),
    ("mistral-v7", mistral_v7!(" ")),
    ("mistral-v7-tekken", mistral_v7!("")),
    (
        "monarch",
        chat!(
            "{{ ('' if loop.first else '<s>') + m.role + '\\n' + m.content + '</s>\\n' }}",
            "'<s>assistant\\n'"
        ),
    ),
    (
        "openchat",
        chat!(
            "{% if m.role == 'system' %}{{ m.content + '<|end_of_turn|>' }}{% else %}{{ 'GPT4 Correct ' + m.role|capitalize + ': ' + m.content + '<|end_of_turn|>' }}{% endif %}",
            "'GPT4 Correct Assistant:'"
        ),
    ),
    (
        "orion",
        concat!(
            "{% set ns = namespace(system='') %}{% for m in messages %}",
            "{% if m.role == 'system' %}{% set ns.system = ns.system + m.content %}",
            "{% elif m.role == 'user' %}{{ 'Human: ' }}{% if ns.system %}{{ ns.system + '\\n\\n' }}",
            "{% set ns.system = '' %}{% endif %}{{ m.content + '\\n\\nAssistant: </s>' }}",
            "{% else %}{{ m.content + '</s>' }}{% endif %}{% endfor %}"
        ),
    ),
    (
        "pangu-embedded",
        chat!(
            "{% if messages and messages[0].role != 'system' %}{{ '[unused9]系统：[unused10]' }}{% endif %}",
            concat!(
                by_role!(
                    "'[unused9]系统：' + m.content + '[unused10]'",
                    "'[unused9]用户：' + m.content + '[unused10]'",
                    "'[unused9]助手：' + m.content + '[unused10]'"
                ),
                "{% if m.role == 'tool' %}{{ '[unused9]工具：' + m.content + '[unused10]' }}",
                "{% elif m.role == 'function' %}{{ '[unused9]方法：' + m.content + '[unused10]' }}{% endif %}"
            ),
            "'[unused9]助手：'"
        ),
    ),
    (
        "phi3",
        chat!("{{ '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' }}", "'<|assistant|>\\n'"),
    ),
    (
        "phi4",
        chat!(
            "{{ '<|im_start|>' + m.role + '<|im_sep|>' + m.content + '<|im_end|>' }}",
            "'<|im_start|>assistant<|im_sep|>'"
        ),
    ),
    (
        "rwkv-world",
        concat!(
            "{% for m in messages %}",
            by_role!(
                "'System: ' + m.content|trim + '\\n\\n'",
                "'User: ' + m.content|trim + '\\n\\n' + ('Assistant:' if loop.last else '')",
                "'Assistant: ' + m.content|trim + '\\n\\n'"
            ),
            "{% endfor %}"
        ),
    ),
    (
        "seed_oss",
        chat!(
            "{{ '<seed:bos>' + m.role + '\\n' + (m.content|trim if m.role == 'assistant' else m.content) + '<seed:eos>' }}",
            "'<seed:bos>assistant\\n'"
        ),
    ),
    (
        "smolvlm",
        chat!(
            "{{ '<|im_start|>' }}",
            "{% if m.role == 'system' %}{{ m.content + '\\n\\n' }}{% else %}{{ ('User: ' if m.role == 'user' else 'Assistant: ') + m.content + '<end_of_utterance>\\n' }}{% endif %}",
            "'Assistant:'"
        ),
    ),
    (
        "solar-open",
        chat!(
            "{{ '<|begin|>' + m.role + '<|content|>' + m.content + '<|end|>' }}",
            "'<|begin|>assistant'"
        ),
    ),
    (
        "vicuna",
        chat!(
            by_role!(
                "m.content + '\\n\\n'",
                "'USER: ' + m.content + '\\n'",
                "'ASSISTANT: ' + m.content + '</s>\\n'"
            ),
            "'ASSISTANT:'"
        ),
    ),
    (
        "vicuna-orca",
        chat!(
            by_role!(
                "'SYSTEM: ' + m.content + '\\n'",
                "'USER: ' + m.content + '\\n'",
                "'ASSISTANT: ' + m.content + '</s>\\n'"
            ),
            "'ASSISTANT:'"
        ),
    ),
    (
        "yandex",
        chat!(
            by_role!(
                "''",
                "' Пользователь: ' + m.content + '\\n\\n'",
                "' Ассистент: ' + m.content + '\\n\\n'"
            ),
            "' Ассистент:[SEP]'"
        ),
    ),
    (
        "zephyr",
        chat!(
            "{{ '<|' + m.role + '|>\\n' + m.content + '<|endoftext|>\\n' }}",
            "'<|assistant|>\\n'"
        ),
    ),
];
