//! A reference set of a decoder-only language model with its model, and the two ways to its input: as transformers was given it, and as a
//! caller of this crate gives it.

#![allow(dead_code, clippy::unwrap_used)] // Each test binary uses a part of this; a helper of a test may panic.

use crate::common::{Report, Set, Share, abs_max, sets_of};
use candle_core::{DType, Device, Tensor, Var};
use fwd_models::{
    Assembled, Blip, CausalLm, Instructions, LanguageInput, LanguageModel, Llava, MultimodalModel,
    QFormerText, Segment, SegmentKind, SpecialTokens, Tap, TextConfig,
};
use fwd_ops::IGNORE_INDEX;

pub(crate) const KINDS: [&str; 4] = ["llama", "blip2-opt", "instructblip-vicuna", "llava"];

/// Largest error of an activation; f32 itself is up to 4.7e-5 away from f64 on these sets.
pub(crate) const ACTIVATION: f64 = 1e-4;
/// Largest error of the first layer: a wrong ε of a norm moves it by 6e-5, f32 itself by 1.4e-5.
pub(crate) const FIRST_LAYER: f64 = 3e-5;
/// Largest error of the vision tower of LLaVA: a wrong ε moves its first layer by 5e-5, f32 itself by 7e-6.
pub(crate) const CLIP: f64 = 2e-5;
pub(crate) const LOSS: f64 = 1e-5;
/// Largest error of dLoss/dP relative to its largest element.
pub(crate) const GRADIENT: f64 = 1e-4;

/// A set with its model.
pub(crate) struct Case<'a> {
    pub(crate) set: &'a Set,
    pub(crate) language: CausalLm,
    pub(crate) config: TextConfig,
    /// The whole model, where there is an image.
    pub(crate) blip: Option<Blip>,
    pub(crate) llava: Option<Llava>,
    pub(crate) tokens: SpecialTokens,
    /// `(batch, n, d)`: the image as the language model reads it.
    pub(crate) image: Option<Tensor>,
}

pub(crate) fn qformer_text(set: &Set) -> Option<QFormerText> {
    set.has("qformer_input_ids")
        .then(|| QFormerText { ids: set.io("qformer_input_ids"), mask: set.io("qformer_attention_mask") })
}

impl<'a> Case<'a> {
    pub(crate) fn new(set: &'a Set, config_file: &str) -> Self {
        let (language, config) = set.causal(config_file);
        let is_llava = set.kind() == "llava";
        let blip = (set.has("pixel_values") && !is_llava).then(|| set.model(config_file));
        let llava = is_llava.then(|| set.llava(config_file, |_| ()));
        let tokens = match (&blip, &llava) {
            (Some(blip), _) => blip.special_tokens().clone(),
            (_, Some(llava)) => llava.special_tokens().clone(),
            _ => SpecialTokens::read(&set.dir.join("generation_config.json"), &config).unwrap(),
        };
        assert_eq!((tokens.eos.clone(), tokens.pad), (vec![set.eos_and_pad().0], set.eos_and_pad().1));
        let mut case = Self { set, language, config, blip, llava, tokens, image: None };
        case.image = case.blip.as_ref().map(|_| {
            let input = case.input();
            input.segments()[0].embeds.clone()
        });
        case
    }

    pub(crate) fn io(&self, name: &str) -> Tensor {
        self.set.io(name)
    }

    pub(crate) fn n_image(&self) -> usize {
        self.image.as_ref().map_or(0, |image| image.dims()[1])
    }

    /// The question as LLaVA reads it, with the stages on the way.
    pub(crate) fn of_llava(&self, llava: &Llava, tap: &mut Tap<'_>) -> LanguageInput {
        let (ids, mask) = (self.io("gen.input_ids"), self.io("gen.attention_mask"));
        let instructions = Instructions { ids, mask, qformer: None };
        llava.features(&self.io("pixel_values"), &instructions, tap).unwrap().input
    }

    /// The question: image, then `BOS` and words; or `BOS`, and words and images as they stand in LLaVA's text.
    pub(crate) fn input(&self) -> LanguageInput {
        if let Some(llava) = &self.llava {
            return self.of_llava(llava, &mut Tap::none()).with_prompt_at(0).unwrap();
        }
        let (ids, mask) = (self.io("gen.input_ids"), self.io("gen.attention_mask"));
        match &self.blip {
            Some(blip) => {
                let (ids, mask) = blip.without_placeholders(&ids, &mask).unwrap();
                let instructions = Instructions { ids, mask, qformer: qformer_text(self.set) };
                blip.features(&self.io("pixel_values"), &instructions, &mut Tap::none()).unwrap().input
            }
            None => {
                let words = self.language.embed(&ids).unwrap();
                LanguageInput::new(vec![Segment::new(SegmentKind::Text, words, &mask).unwrap()]).unwrap()
            }
        }
    }

    /// The question in two segments, of which the first is `BOS`, behind which prompts go.
    pub(crate) fn input_after_bos(&self) -> LanguageInput {
        if let Some(llava) = &self.llava {
            return self.of_llava(llava, &mut Tap::none());
        }
        let (ids, mask) = (self.io("gen.input_ids"), self.io("gen.attention_mask"));
        let rows: Vec<Vec<i64>> = ids.to_vec2().unwrap();
        let masks: Vec<Vec<i64>> = mask.to_vec2().unwrap();
        let first: Vec<usize> = masks.iter().map(|mask| mask.iter().position(|&m| m == 1).unwrap()).collect();
        let bos: Vec<i64> = rows.iter().zip(&first).map(|(row, &at)| row[at]).collect();
        let n = bos.len();
        let bos = self.language.embed(&Tensor::from_vec(bos, (n, 1), &Device::Cpu).unwrap()).unwrap();
        let rest: Vec<i64> = masks
            .iter()
            .zip(&first)
            .flat_map(|(mask, &at)| mask.iter().enumerate().map(move |(i, &m)| if i == at { 0 } else { m }))
            .collect();
        let rest = Tensor::from_vec(rest, ids.dims(), &Device::Cpu).unwrap();
        let words = self.language.embed(&ids).unwrap();
        let segments = vec![
            Segment::full(SegmentKind::Text, bos).unwrap(),
            Segment::new(SegmentKind::Text, words, &rest).unwrap(),
        ];
        LanguageInput::new(segments).unwrap().with_prompt_at(1).unwrap()
    }

    /// The answers, without what stands in front of them.
    pub(crate) fn labels(&self) -> Tensor {
        let rows: Vec<Vec<i64>> = self.io("right.labels").to_vec2().unwrap();
        let answers: Vec<Vec<i64>> =
            rows.into_iter().map(|row| row.into_iter().filter(|&id| id != IGNORE_INDEX).collect()).collect();
        let answers: Vec<&[i64]> = answers.iter().map(|row| &row[..]).collect();
        fwd_models::padded(&answers, IGNORE_INDEX, &Device::Cpu).unwrap()
    }

    /// The rows of a batch as transformers embeds them: images in front, padding where it lies.
    pub(crate) fn literal(&self, batch: &str) -> Assembled {
        let ids = self.io(&format!("{batch}.input_ids"));
        let n = self.n_image();
        let words = ids.narrow(1, n, ids.dim(1).unwrap() - n).unwrap().contiguous().unwrap();
        let words = self.language.embed(&words).unwrap();
        let embeds = match (&self.image, &self.llava) {
            (Some(image), _) => Tensor::cat(&[image, &words], 1).unwrap(),
            (_, Some(llava)) => self.with_images(llava, &ids, &words),
            _ => words,
        };
        let mask = self.io(&format!("{batch}.attention_mask")).to_dtype(DType::F32).unwrap();
        Assembled { embeds, mask }
    }

    /// Images in the places of their tokens, in order over the whole batch.
    pub(crate) fn with_images(&self, llava: &Llava, ids: &Tensor, words: &Tensor) -> Tensor {
        let features = llava.image_features(&self.io("pixel_values"), &mut Tap::none()).unwrap();
        let visual = llava.visual_tokens(&features, &mut Tap::none()).unwrap().flatten(0, 1).unwrap();
        let ids: Vec<i64> = ids.flatten_all().unwrap().to_vec1().unwrap();
        let mut next = ids.len() as u32;
        let row = |(i, &id): (usize, &i64)| {
            if id != i64::from(llava.config().image_token) {
                return i as u32;
            }
            next += 1;
            next - 1
        };
        let rows: Vec<u32> = ids.iter().enumerate().map(row).collect();
        assert_eq!(next as usize, ids.len() + visual.dim(0).unwrap());
        let table = Tensor::cat(&[&words.flatten(0, 1).unwrap(), &visual], 0).unwrap();
        let rows = Tensor::new(rows, &Device::Cpu).unwrap();
        table.index_select(&rows, 0).unwrap().reshape(words.shape()).unwrap()
    }

    /// The positions that the forward pass of transformers counts for a mask.
    pub(crate) fn literal_positions(&self, mask: &Tensor) -> Tensor {
        let rows: Vec<Vec<f32>> = mask.to_vec2().unwrap();
        let row = |mask: &Vec<f32>| -> Vec<i64> {
            let mut n = 0;
            let counted = mask.iter().map(|&m| {
                n += i64::from(m != 0.0);
                if m == 0.0 { -1 } else { n - 1 }
            });
            match &self.config {
                TextConfig::Opt(_) => counted.collect(),
                _ => (0..mask.len() as i64).collect(),
            }
        };
        Tensor::new(rows.iter().map(row).collect::<Vec<_>>(), &Device::Cpu).unwrap()
    }

    /// Logits of every token with these positions.
    pub(crate) fn literal_logits(&self, read: &Assembled, positions: &Tensor, tap: &mut Tap<'_>) -> Tensor {
        let states = self.language.states(read, positions, tap).unwrap();
        self.language.logits(&states, tap).unwrap()
    }

    pub(crate) fn loss(&self, input: &LanguageInput, prompt: &Tensor) -> Tensor {
        let input = input.with_prompt(prompt).unwrap();
        self.language.score(&input, &self.labels(), &mut Tap::none()).unwrap().loss
    }
}

/// Tokens of padding set to 0, as in the sets.
pub(crate) fn real(values: &Tensor, mask: &Tensor) -> Tensor {
    values.broadcast_mul(&mask.unsqueeze(2).unwrap()).unwrap()
}

/// The mean loss of labels that are as long as the input, as transformers shifts them.
pub(crate) fn shifted_loss(logits: &Tensor, labels: &Tensor) -> Tensor {
    let n = labels.dim(1).unwrap() - 1;
    let logits = logits.narrow(1, 0, n).unwrap().contiguous().unwrap();
    fwd_ops::cross_entropy(&logits, &labels.narrow(1, 1, n).unwrap().contiguous().unwrap()).unwrap()
}

pub(crate) fn gradient_of(loss: &Tensor, prompt: &Var) -> Tensor {
    fwd_ops::backward(loss, &[("prompt", prompt)]).unwrap().remove(0)
}

pub(crate) fn one(loss: &Tensor) -> Tensor {
    loss.detach().unsqueeze(0).unwrap()
}

impl Report {
    /// Compares with a tensor of the set, if it holds that.
    pub(crate) fn against(&mut self, case: &Case<'_>, name: &str, ours: &Tensor, tolerance: f64) {
        if case.set.has(name) {
            self.close(name, ours, &case.io(name), tolerance);
        }
    }

    pub(crate) fn gradient(&mut self, case: &Case<'_>, name: &str, ours: &Tensor) {
        if case.set.has(name) {
            self.close(name, ours, &case.io(name), GRADIENT * abs_max(&case.io(name)));
        }
    }
}

/// Checks all sets, and that of each set no tensor of the share went unchecked.
pub(crate) fn for_all_sets(share: Share, check: impl Fn(&Case<'_>, &mut Report)) {
    let check = |case: &Case<'_>, report: &mut Report| {
        check(case, report);
        report.covers(case.set, |name| Share::of(name) == share);
    };
    let mut report = Report::default();
    for set in sets_of(&KINDS) {
        let case = Case::new(&set, "config.json");
        report.enter(&set.name);
        check(&case, &mut report);
        #[cfg(feature = "emulate")]
        {
            report.enter(&format!("{} on an emulated GPU", set.name));
            fwd_ops::emulated(fwd_kernels::Target::H100, || check(&case, &mut report));
        }
    }
    report.finish();
}

/// [`Case::input_after_bos`] where the sets have that placement.
pub(crate) fn case_input_after_bos(case: &Case<'_>, input: &LanguageInput) -> LanguageInput {
    if case.blip.is_some() { input.clone() } else { case.input_after_bos() }
}
