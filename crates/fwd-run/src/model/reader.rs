//! How texts become token ids: an instruction becomes a prompt and its ids, an answer the ids that are learnt.
//!
//! | model | input of the language model | what is learnt |
//! |---|---|---|
//! | BLIP kinds | the image, then the ids of the instruction, with the tokenizer's special tokens; or what the chat template writes, if the model was trained with it | |
//! | LLaVA | the ids of the prompt, in which one token stands for the image: `<image>`, a line feed and the instruction (`plain`), or what the model's chat template writes (`chat`) | |
//! | encoder-decoder (T5) | | the ids of the answer with the tokenizer's special tokens |
//! | decoder-only (LLaMA, OPT) | | the ids of the answer without special tokens, then the end of a sequence |
//!
//! A decoder-only model goes on writing where its input ends. A vocabulary whose words carry their space in front (byte-level BPE) therefore gets
//! one in front of the answer, unless the input ends in white space. What is generated is trimmed.

use crate::choice::Choice;
use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use fwd_data::{ChatTemplate, Processor, TextTokenizer, TokenBatch};
use fwd_models::{Instructions, QFormerText, Reading, SpecialTokens};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;

/// How the prompt of an instruction is written; the default is what files mean that were written before there were templates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Template {
    /// As the chat template of the model's directory writes it.
    Chat,
    /// The instruction itself, behind the image.
    #[default]
    Plain,
}

impl Choice for Template {
    fn all() -> Vec<(Self, &'static str, String)> {
        vec![
            (Self::Chat, "chat", "As the chat template of the model's directory writes it".to_owned()),
            (Self::Plain, "plain", "The instruction itself, behind the image".to_owned()),
        ]
    }
}

/// The name on the command line and in files.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What decides, beside the tokenizers, which ids a text becomes.
#[derive(Debug, Clone)]
pub(crate) struct TextFormat {
    /// None: prompts are plain.
    pub(super) template: Option<ChatTemplate>,
    pub(super) reading: Reading,
    /// What an answer that is learnt by a decoder-only model ends in.
    pub(super) eos: u32,
}

impl TextFormat {
    /// The format of the model in a directory. Without a `template` it is the model's own if the directory has one and the model was trained
    /// with it, as LLaVA was and the published models of the BLIP kinds were not.
    ///
    /// # Errors
    /// A damaged chat template, or none where one is asked for.
    pub(crate) fn open(dir: &Path, template: Option<Template>, reading: Reading, eos: u32) -> Result<Self> {
        let template = match template {
            Some(Template::Plain) => None,
            None if !reading.uses_chat_template => None,
            None => ChatTemplate::open(dir)?,
            Some(Template::Chat) => Some(ChatTemplate::open(dir)?.with_context(|| {
                format!(
                    "{}: the model has no chat template (chat_template.jinja, chat_template.json, or the key chat_template of \
                     tokenizer_config.json); use --template plain",
                    dir.display()
                )
            })?),
        };
        Ok(Self { template, reading, eos })
    }

    /// Which of the two it is.
    pub(super) fn template(&self) -> Template {
        if self.template.is_some() { Template::Chat } else { Template::Plain }
    }
}

/// The id that ends an answer: the one that the tokenizer's files call so, if generation ends with it, else the first with which it does.
pub(crate) fn end_of_answer(tokenizer: &TextTokenizer, tokens: &SpecialTokens) -> u32 {
    let named = tokenizer.names().eos.as_deref().and_then(|eos| tokenizer.id(eos));
    let named = named.filter(|id| tokens.eos.contains(id));
    named.or_else(|| tokens.eos.first().copied()).unwrap_or_default()
}

/// Turns texts into what a model reads, and counts their tokens.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    /// Turns images and texts into what the model reads.
    pub(crate) processor: &'a Processor,
    /// How prompts and answers are written.
    pub(crate) format: &'a TextFormat,
}

impl Reader<'_> {
    /// Whether a chat template writes the prompts.
    pub fn has_template(&self) -> bool {
        self.format.template.is_some()
    }

    /// Whether images say anything to the model.
    pub fn reads_images(&self) -> bool {
        self.format.reading.reads_images
    }

    /// The longest instruction that the language model has positions for, in tokens as [`Self::count_instruction_tokens`] counts them; none
    /// if it has no such limit (T5 has relative positions).
    pub fn max_instruction_tokens(&self) -> Option<usize> {
        self.format.reading.max_instruction_tokens
    }

    /// The tokens of an instruction's prompt, special tokens and one for an image in the text included.
    ///
    /// # Errors
    /// Those of the tokenizer and of the chat template.
    pub fn count_instruction_tokens(&self, instruction: &str) -> Result<usize> {
        Ok(self.prompt_ids(instruction)?.len())
    }

    /// The tokens of an answer to an instruction that is to be learnt, end of sequence included.
    ///
    /// # Errors
    /// Those of the tokenizer and of the chat template.
    pub fn count_answer_tokens(&self, instruction: &str, answer: &str) -> Result<usize> {
        Ok(self.answer_ids(instruction, answer)?.len())
    }

    /// The prompt of an instruction as a text, in which the model's token for an image stands where the image is, if it stands in the text.
    ///
    /// A placeholder that the instruction itself has is left out first, wherever it stands: the image has its place already.
    ///
    /// # Errors
    /// An instruction that is nothing but placeholders; a chat template that fails.
    pub fn prompt(&self, instruction: &str) -> Result<String> {
        let tokenizer = &self.processor.text;
        let question = self.question(instruction)?;
        let has_image = self.format.reading.has_images_in_text;
        match &self.format.template {
            Some(template) => Ok(template.render(&question, has_image)?),
            None if has_image => {
                let image = tokenizer.image_token().with_context(|| {
                    let id = self.format.reading.image_token.unwrap_or_default();
                    format!(
                        "{}: it has no token with the id {id}, which stands for the image in config.json; is this the model's tokenizer?",
                        tokenizer.origin()
                    )
                })?;
                Ok(format!("{image}\n{question}"))
            }
            None => Ok(question),
        }
    }

    /// An instruction without what would become an image.
    fn question(&self, instruction: &str) -> Result<String> {
        let rest = self.processor.text.without_image_token(instruction);
        ensure!(
            !rest.is_empty() || instruction.is_empty(),
            "the instruction is nothing but the placeholder of the image"
        );
        Ok(rest)
    }

    /// The ids of an instruction's prompt, in which one stands for the image, if it stands in the text.
    ///
    /// # Errors
    /// As [`Self::prompt`]; a chat template that writes the image not exactly once; those of the tokenizer.
    pub(crate) fn prompt_ids(&self, instruction: &str) -> Result<Vec<u32>> {
        let (tokenizer, format) = (&self.processor.text, self.format);
        let prompt = self.prompt(instruction)?;
        if format.template.is_none() && !format.reading.has_images_in_text {
            return Ok(tokenizer.encode(&prompt)?);
        }
        let ids = tokenizer.encode_prompt(&prompt)?;
        let n_images = ids.iter().filter(|&&id| Some(id) == format.reading.image_token).count();
        let wanted = usize::from(format.reading.has_images_in_text);
        if n_images != wanted {
            let (origin, what_to_do) = match &format.template {
                Some(template) => (
                    template.path().display().to_string(),
                    "use --template plain, or correct the template".to_owned(),
                ),
                None => (
                    tokenizer.origin().to_owned(),
                    format!(
                        "the token with the id {}, which stands for the image in config.json, must be among its added_tokens",
                        format.reading.image_token.unwrap_or_default()
                    ),
                ),
            };
            anyhow::bail!(
                "{origin}: the prompt has {n_images} images instead of {wanted}; {what_to_do}: {}",
                fwd_data::excerpt(&prompt)
            );
        }
        Ok(ids)
    }

    /// The tokenizer of the bridge, if it reads the instruction.
    fn bridge(&self) -> Option<&TextTokenizer> {
        self.processor.qformer.as_ref().filter(|_| self.format.reading.bridge_reads_instruction)
    }

    /// The ids of an instruction as the bridge reads it, cut to its positions, and how many there were.
    ///
    /// The token that ends the sequence stays, as in transformers. A chat template is for the language model alone.
    fn bridge_ids(&self, tokenizer: &TextTokenizer, instruction: &str) -> Result<(Vec<u32>, usize)> {
        let mut ids = tokenizer.encode(&self.question(instruction)?)?;
        let n_tokens = ids.len();
        let limit = self.format.reading.max_bridge_tokens;
        if let Some(limit) = limit.filter(|limit| (1..n_tokens).contains(limit)) {
            ids.drain(limit - 1..n_tokens - 1);
        }
        Ok((ids, n_tokens))
    }

    /// The positions that the bridge has for an instruction; none if it reads no instruction or has no limit.
    pub fn max_bridge_tokens(&self) -> Option<usize> {
        self.bridge().and(self.format.reading.max_bridge_tokens)
    }

    /// The tokens of an instruction for the bridge and the positions that it has, if it reads the instruction and has too few: it reads the
    /// beginning then.
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub fn bridge_excess(&self, instruction: &str) -> Result<Option<(usize, usize)>> {
        let Some(tokenizer) = self.bridge() else { return Ok(None) };
        let (ids, n_tokens) = self.bridge_ids(tokenizer, instruction)?;
        Ok((ids.len() < n_tokens).then_some((n_tokens, ids.len())))
    }

    /// The ids of an answer that is learnt, end of sequence included.
    ///
    /// # Errors
    /// Those of the tokenizer and of the chat template.
    pub(crate) fn answer_ids(&self, instruction: &str, answer: &str) -> Result<Vec<u32>> {
        let tokenizer = &self.processor.text;
        let answer = tokenizer.without_image_token(answer);
        if self.format.reading.is_encoder_decoder {
            return Ok(tokenizer.encode(&answer)?);
        }
        let goes_on = tokenizer.is_byte_level()
            && !answer.is_empty()
            && !answer.starts_with(char::is_whitespace)
            && !self.prompt(instruction)?.ends_with(char::is_whitespace);
        let answer = if goes_on { format!(" {answer}") } else { answer };
        let mut ids = tokenizer.encode_plain(&answer)?;
        ids.push(self.format.eos);
        Ok(ids)
    }

    /// Instructions as the model reads them.
    ///
    /// # Errors
    /// An instruction that is too long for the language model; those of [`Self::prompt_ids`].
    pub(crate) fn instructions(&self, texts: &[&str]) -> Result<Instructions> {
        let rows = texts.iter().map(|text| self.prompt_ids(text)).collect::<Result<Vec<_>>>()?;
        if let Some(limit) = self.format.reading.max_instruction_tokens {
            for (row, text) in rows.iter().zip(texts) {
                let n_tokens = row.len();
                ensure!(
                    n_tokens <= limit,
                    "the instruction has {n_tokens} tokens, the model's limit is {limit}; shorten it: {}",
                    fwd_data::excerpt(text)
                );
            }
        }
        let qformer = match self.bridge() {
            None => None,
            Some(tokenizer) => {
                let rows = texts.iter().map(|text| Ok(self.bridge_ids(tokenizer, text)?.0));
                let batch = tokenizer.batch(&rows.collect::<Result<Vec<_>>>()?);
                Some(QFormerText { ids: tensor(&batch.ids, &batch)?, mask: tensor(&batch.mask, &batch)? })
            }
        };
        let text = self.processor.text.batch(&rows);
        Ok(Instructions { ids: tensor(&text.ids, &text)?, mask: tensor(&text.mask, &text)?, qformer })
    }
}

fn tensor(values: &[i64], batch: &TokenBatch) -> Result<Tensor> {
    Ok(Tensor::from_slice(values, (batch.rows, batch.width), &Device::Cpu)?)
}
