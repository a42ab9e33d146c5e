//! The chat template of a model: a Jinja program that writes a conversation as the model was trained to read it.
//!
//! It is rendered as transformers does it (`apply_chat_template` with `add_generation_prompt=True`): `trim_blocks` and `lstrip_blocks`,
//! `break` and `continue`, Python's methods of texts, `raise_exception`, `strftime_now`, the names of special tokens, and blocks
//! `{% generation %}`, which change nothing in a prompt. One thing differs: `strftime_now` knows one day only ([`TODAY`]), so that a prompt does not
//! depend on the day on which it is made.

use crate::error::{DataError, Result};
use crate::fence;
use crate::special_tokens::{SpecialNames, object};
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, context};
use serde_json::Value as Json;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The longest template, in bytes; published ones have some kilobytes.
const MAX_TEMPLATE: u64 = 1 << 20;
/// How many instructions of the template engine a prompt may take; published templates take some hundred.
const FUEL: u64 = 1_000_000;
/// The name of the template within its environment.
const NAME: &str = "chat";

/// The chat template of a model directory.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    path: PathBuf,
    environment: Arc<Environment<'static>>,
    names: SpecialNames,
}

impl ChatTemplate {
    /// The template of a directory, from the first of these that is there: `chat_template.jinja`, `chat_template.json`, the key
    /// `chat_template` of `processor_config.json`, that of `tokenizer_config.json`, where it is a text or a list of named ones, of which
    /// the one called `default` is taken. None if the directory has no template.
    ///
    /// # Errors
    /// [`DataError::Io`] or [`DataError::Config`] naming the file, and the line of the template where it is no Jinja.
    pub fn open(dir: &Path) -> Result<Option<Self>> {
        let Some((path, source)) = find(dir)? else { return Ok(None) };
        Self::parse(path, source, SpecialNames::open(dir)?).map(Some)
    }

    /// The template of this text; `path` names it in errors.
    fn parse(path: PathBuf, source: String, names: SpecialNames) -> Result<Self> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_fuel(Some(FUEL));
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |what: String| -> std::result::Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, what))
        });
        environment.add_function("strftime_now", strftime);
        let source = without_generation_blocks(&source);
        let added = fence::caught(move || environment.add_template_owned(NAME, source).map(|()| environment));
        let environment = guarded(&path, added)?;
        Ok(Self { path, environment: Arc::new(environment), names })
    }

    /// The file that the template is in.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The prompt for one question of a user, up to where the answer begins. With an image the content of the message is a list, as
    /// templates of multimodal models expect it: the image, then the text.
    ///
    /// # Errors
    /// [`DataError::Config`] naming the file and the line at which the template fails.
    pub fn render(&self, question: &str, with_image: bool) -> Result<String> {
        let content = if with_image {
            Value::from_serialize([
                serde_json::json!({ "type": "image" }),
                serde_json::json!({ "type": "text", "text": question }),
            ])
        } else {
            Value::from(question)
        };
        let name = |name: &Option<String>| name.as_deref().map_or(Value::UNDEFINED, Value::from);
        let SpecialNames { bos, eos, unk, pad } = &self.names;
        let context = context! {
            messages => vec![context! { role => "user", content => content }],
            add_generation_prompt => true,
            tools => Value::from(()),
            documents => Value::from(()),
            bos_token => name(bos),
            eos_token => name(eos),
            unk_token => name(unk),
            pad_token => name(pad),
        };
        let render = || self.environment.get_template(NAME)?.render(context);
        guarded(&self.path, fence::caught(render))
    }
}

/// What the template engine gave, its error, or the message of its panic: lines of more than 65,535 characters overflow its counter of
/// columns.
fn guarded<T>(path: &Path, outcome: std::result::Result<std::result::Result<T, Error>, String>) -> Result<T> {
    match outcome {
        Ok(outcome) => outcome.map_err(|error| fail(path, &error)),
        Err(panic) => {
            let what = format!("the chat template cannot be read: {panic}");
            Err(DataError::Config { path: path.into(), what })
        }
    }
}

/// An error of the template engine, with the line of the template.
fn fail(path: &Path, error: &Error) -> DataError {
    let what = error
        .detail()
        .map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()));
    let line = error.line().map_or_else(String::new, |line| format!("line {line} of the chat template: "));
    DataError::Config { path: path.into(), what: format!("{line}{what}") }
}

/// The text of a directory's template and the file that it is in.
fn find(dir: &Path) -> Result<Option<(PathBuf, String)>> {
    let path = dir.join("chat_template.jinja");
    if path.exists() {
        let source = fwd_files::read_to_string(&path, MAX_TEMPLATE);
        return source
            .map(|source| Some((path.clone(), source)))
            .map_err(|source| DataError::Io { path, source });
    }
    for file in ["chat_template.json", "processor_config.json", "tokenizer_config.json"] {
        let path = dir.join(file);
        let Some(mut keys) = object(&path)? else { continue };
        let refuse = |what: String| DataError::Config {
            path: path.clone(),
            what: format!("key `chat_template`: {what}"),
        };
        match keys.remove("chat_template") {
            None | Some(Json::Null) => {}
            Some(Json::String(source)) => return Ok(Some((path, source))),
            Some(Json::Array(named)) => {
                let name = |entry: &Json| entry["name"].as_str().unwrap_or_default().to_owned();
                let default = named.iter().find(|entry| name(entry) == "default");
                let source = default.and_then(|entry| entry["template"].as_str()).map(str::to_owned);
                let names = || named.iter().map(name).collect::<Vec<_>>().join(", ");
                let source = source.ok_or_else(|| {
                    refuse(format!("of the named templates none is called `default`: {}", names()))
                })?;
                return Ok(Some((path, source)));
            }
            Some(_) => return Err(refuse("is no text and no list of named ones".into())),
        }
    }
    Ok(None)
}

/// `{% generation %}` and `{% endgeneration %}`, with which transformers marks what an assistant says, as blocks that Jinja has. Lines stay
/// where they are.
fn without_generation_blocks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let inside = &rest[start + 2..];
        let Some(length) = inside.find("%}") else { break };
        let (tag, inside) = (start + 2 + length + 2, &inside[..length]);
        let bare = |c: char| c == '-' || c == '+' || c.is_whitespace();
        out.push_str(&rest[..start + 2]);
        match inside.trim_matches(bare) {
            "generation" => out.push_str(&inside.replace("generation", "if true")),
            "endgeneration" => out.push_str(&inside.replace("endgeneration", "endif")),
            _ => out.push_str(inside),
        }
        out.push_str("%}");
        rest = &rest[tag..];
    }
    out + rest
}

/// The day that `strftime_now` writes: Friday, the 26th of July 2024, the one that Llama 3's own templates fall back to.
pub const TODAY: &str = "2024-07-26";

/// Python's `strftime` of midnight of [`TODAY`].
fn strftime(format: &str) -> std::result::Result<String, Error> {
    let mut out = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        let directive = match letters.next() {
            Some('-') => letters.next().map(|c| (c, true)),
            other => other.map(|c| (c, false)),
        };
        out.push_str(match directive {
            Some(('Y', false)) => "2024",
            Some(('y', _)) => "24",
            Some(('m', false)) => "07",
            Some(('m', true)) => "7",
            Some(('d', _)) => "26",
            Some(('b' | 'h', false)) => "Jul",
            Some(('B', false)) => "July",
            Some(('a', false)) => "Fri",
            Some(('A', false)) => "Friday",
            Some(('j', _)) => "208",
            Some(('H' | 'M' | 'S', false)) => "00",
            Some(('H' | 'M' | 'S', true)) => "0",
            Some(('F', false)) => TODAY,
            Some(('%', false)) => "%",
            _ => {
                let what = format!("strftime_now: {format:?} has a directive that is not known here");
                return Err(Error::new(ErrorKind::InvalidOperation, what));
            }
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn template(source: &str) -> Result<ChatTemplate> {
        let names =
            SpecialNames { bos: Some("<s>".into()), eos: Some("</s>".into()), ..SpecialNames::default() };
        ChatTemplate::parse("chat_template.jinja".into(), source.into(), names)
    }

    fn render(source: &str, question: &str, with_image: bool) -> String {
        template(source).unwrap().render(question, with_image).unwrap()
    }

    /// The template of llava-hf/llava-1.5-7b-hf.
    const LLAVA: &str = "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}\
        {# Render all images first #}{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}\
        {% endfor %}{# Render all text next #}{% if message['role'] != 'assistant' %}{% for content in message['content'] | \
        selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}{% endfor %}{% else %}{% for content in message['content'] | \
        selectattr('type', 'equalto', 'text') %}{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}\
        {% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}";

    #[test]
    fn the_template_of_llava_and_one_of_a_text_model() {
        assert_eq!(render(LLAVA, "What is it?", true), "USER: <image>\nWhat is it? ASSISTANT:");
        let text = "{%- if tools is not none %}{{ tools | length }}{% endif -%}\n{{ bos_token }}{% for message in messages %}\n\
            {{ '<|' + message.role + '|>' + message['content'].strip() + eos_token }}\n{% if loop.first %}{% break %}{% endif %}\n{% endfor %}\n\
            {% if message is not defined and add_generation_prompt %}\n    {{ 'A:' }}{% endif %}\n";
        assert_eq!(render(text, " a & <b> ", false), "<s><|user|>a & <b></s>\n    A:");
    }

    #[test]
    fn blocks_trim_and_python_methods_work_as_in_transformers() {
        let text = "{% set parts = messages[0].content.split('|') %}\n  {% if parts[1].startswith('b') %}\n{{ parts[1] }}\n  {%- endif %}\n!";
        assert_eq!(render(text, "a|bc", false), "bc!");
        assert_eq!(render("{{ strftime_now('%d %b %Y') }}", "", false), "26 Jul 2024");
        assert_eq!(render("{{ pad_token }}{{ unknown }}.", "", false), ".");
        // What a user writes is no program.
        assert_eq!(render("{{ messages[0].content }}", "{{ bos_token }}", false), "{{ bos_token }}");
    }

    #[test]
    fn errors_name_the_file_and_the_line() {
        let error = |source: &str| match template(source) {
            Err(error) => error.to_string(),
            Ok(template) => template.render("a", false).unwrap_err().to_string(),
        };
        for (source, parts) in [
            ("a\nb\n{% if %}", &["line 3", "chat_template.jinja"][..]),
            ("a\n{{ raise_exception('roles must alternate') }}", &["line 2", "roles must alternate"]),
            ("{{ messages[0].content.nonsense() }}", &["line 1", "nonsense"]),
            (
                "{% for i in range(9999) %}{% for j in range(9999) %}{{ j }}{% endfor %}{% endfor %}",
                &["fuel"],
            ),
            ("{{ strftime_now('%Q') }}", &["%Q"]),
        ] {
            let error = error(source);
            assert!(parts.iter().all(|part| error.contains(part)), "{source}: {error}");
        }
        // The engine counts columns in 16 bits, and panics where overflows are checked.
        let long = format!("{{{{ {} }}}}", "x".repeat(70_000));
        match template(&long).and_then(|template| template.render("a", false)) {
            Ok(text) => assert_eq!(text, ""),
            Err(error) => assert!(error.to_string().contains("the chat template cannot be read"), "{error}"),
        }
    }

    #[test]
    fn a_directory_has_its_template_in_one_of_four_files() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        let of = || ChatTemplate::open(dir.path()).map(|found| found.map(|t| t.render("q", false).unwrap()));
        assert_eq!(of().unwrap(), None);
        write("tokenizer_config.json", r#"{"chat_template": [{"name": "tool_use", "template": "t"}]}"#);
        let error = of().unwrap_err().to_string();
        assert!(error.contains("tokenizer_config.json") && error.contains("tool_use"), "{error}");
        let named = r#"{"eos_token": "<e>", "chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d{{ eos_token }}"}]}"#;
        write("tokenizer_config.json", named);
        assert_eq!(of().unwrap().unwrap(), "d<e>");
        write("chat_template.json", r#"{"chat_template": "j"}"#);
        assert_eq!(of().unwrap().unwrap(), "j");
        write("chat_template.jinja", "f{{ messages[0].content }}");
        assert_eq!(of().unwrap().unwrap(), "fq");
    }
}
