//! The tasks of CoIN, UCIT, TriGap and MLLM-DCL, by the names that their folders and files have.
//!
//! # Source
//! CoIN: Chen et al. 2024 and its scripts. UCIT: Guo et al. 2025 (HiDe-LLaVA) and MCITlib's configuration. MLLM-DCL: Zhao et al. 2025
//! and MCITlib. TriGap: Tang et al. 2026 (Prism), table of data sets; its folder names are taken from that table. Copies of these sets
//! differ in names, so that each file has several, tried in turn.

use super::description::{FileNames, Kind, TaskSpec};
use crate::bench::Metric;

/// A published benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Preset {
    /// CoIN with its 8 tasks (Chen et al. 2024).
    Coin,
    /// UCIT with its 6 tasks (Guo et al. 2025).
    Ucit,
    /// TriGap with its 10 tasks (Tang et al. 2026).
    TriGap,
    /// MLLM-DCL, the domain part of MLLM-CL, with its 5 tasks (Zhao et al. 2025).
    MllmDcl,
}

/// A task: the names its folder may have, its kind and how it is scored.
type Row = (&'static [&'static str], Kind, Metric);

const COIN: &[Row] = &[
    (&["ScienceQA"], Kind::MultipleChoice, Metric::MultipleChoice),
    (&["TextVQA"], Kind::Vqa, Metric::TextVqa),
    (&["ImageNet"], Kind::Classification, Metric::Exact),
    (&["GQA"], Kind::Vqa, Metric::Gqa),
    (&["VizWiz"], Kind::Vqa, Metric::VqaSoft),
    (&["Grounding"], Kind::Grounding, Metric::Grounding),
    (&["VQAv2"], Kind::Vqa, Metric::VqaSoft),
    (&["OCRVQA", "OCR-VQA"], Kind::Vqa, Metric::Exact),
];

const UCIT: &[Row] = &[
    (&["ImageNet-R"], Kind::Classification, Metric::Exact),
    (&["ArxivQA"], Kind::MultipleChoice, Metric::MultipleChoice),
    (&["VizWiz-caption", "VizWiz-cap", "VizWiz", "Vizcap"], Kind::Caption, Metric::CiderD),
    (&["IconQA"], Kind::Vqa, Metric::Exact),
    (&["CLEVR-Math", "CLEVR"], Kind::Vqa, Metric::Exact),
    (&["Flickr30k-cap", "Flickr30k"], Kind::Caption, Metric::CiderD),
];

const TRI_GAP: &[Row] = &[
    (&["PMCVQA", "PMC-VQA"], Kind::MultipleChoice, Metric::MultipleChoice),
    (&["DocVQA"], Kind::Vqa, Metric::Anls),
    (&["ChartQA"], Kind::Vqa, Metric::Exact),
    (&["IconQA"], Kind::Vqa, Metric::Exact),
    (&["InfographicVQA", "InfoVQA"], Kind::Vqa, Metric::Anls),
    (&["ArxivVQA", "ArxivQA"], Kind::MultipleChoice, Metric::MultipleChoice),
    (&["Roadside", "RoadSide"], Kind::Vqa, Metric::Exact),
    (&["ChemVQA"], Kind::Vqa, Metric::Exact),
    (&["FloodNetVQA", "FloodNet"], Kind::Vqa, Metric::Exact),
    (&["CLEVR", "CLEVR-Math"], Kind::Vqa, Metric::Exact),
];

const MLLM_DCL: &[Row] = &[
    (&["RS"], Kind::Vqa, Metric::Exact),
    (&["Med"], Kind::Vqa, Metric::Exact),
    (&["AD"], Kind::Vqa, Metric::Exact),
    (&["Sci"], Kind::Vqa, Metric::Exact),
    (&["Fin"], Kind::MultipleChoice, Metric::MultipleChoice),
];

/// Names of the file of training records.
pub(super) const TRAIN: &[&str] = &["train.json", "train_4w.json", "train_brief_4w.json"];
/// Names of the file of validation records.
pub(super) const VAL: &[&str] = &["val.json"];
/// Names of the file of test records.
pub(super) const TEST: &[&str] = &["test.json", "test_3000.json"];
const CAPTIONS: &[&str] = &["val_coco_type_3000.json", "test_coco_type_3000.json", "val_coco_type.json"];

impl Preset {
    /// All presets, in the order of the variants.
    pub const ALL: [Self; 4] = [Self::Coin, Self::Ucit, Self::TriGap, Self::MllmDcl];

    fn rows(self) -> &'static [Row] {
        match self {
            Self::Coin => COIN,
            Self::Ucit => UCIT,
            Self::TriGap => TRI_GAP,
            Self::MllmDcl => MLLM_DCL,
        }
    }

    /// The tasks in their published order; the paths begin at the folder that the tasks' folders are in.
    pub fn tasks(self) -> Vec<TaskSpec> {
        self.rows().iter().map(|row| self.task(row)).collect()
    }

    fn task(self, &(folders, kind, scorer): &Row) -> TaskSpec {
        let join = |files: &[&str]| {
            let in_folder = |folder: &&str| {
                let folder = (*folder).to_owned();
                files.iter().map(move |file| format!("{folder}/{file}")).collect::<Vec<_>>()
            };
            FileNames::Any(folders.iter().flat_map(in_folder).collect())
        };
        // CoIN tests TextVQA on its validation records, whose answers are in TextVQA's own file.
        let is_text_vqa = scorer == Metric::TextVqa;
        let test: &[&str] = if is_text_vqa { &["val.json", "test.json"] } else { TEST };
        let references = match kind {
            Kind::Caption => Some(join(CAPTIONS)),
            _ if is_text_vqa => Some(join(&["TextVQA_0.5.1_val.json"])),
            _ => None,
        };
        // MLLM-CL's paths begin at each task's own folder, UCIT's images are sometimes kept apart.
        let image_root = match self {
            Self::MllmDcl => folders.iter().map(|folder| (*folder).to_owned()).collect(),
            _ => vec!["datasets".to_owned(), ".".to_owned()],
        };
        let mut spec = TaskSpec::new(slug(folders[0]), kind);
        spec.title = Some(folders[0].to_owned());
        spec.image_root = Some(FileNames::Any(image_root));
        spec.train = Some(join(TRAIN));
        spec.test = Some(join(test));
        spec.references = references;
        spec.scorer = Some(scorer);
        spec
    }

    /// The preset whose tasks have most of the given folder names; of several, the first. None if no preset knows any of them.
    pub fn fitting<S: AsRef<str>>(folders: &[S]) -> Option<Self> {
        let is_here = |names: &&[&str]| names.iter().any(|name| folders.iter().any(|f| f.as_ref() == *name));
        let n_known = |preset: &Self| preset.folders().filter(is_here).count();
        Self::ALL.into_iter().rev().max_by_key(n_known).filter(|preset| n_known(preset) > 0)
    }

    /// The place of the task of a folder in the published order, from 0.
    pub fn place(self, folder: &str) -> Option<usize> {
        self.folders().position(|names| names.contains(&folder))
    }

    /// The names that the folder of each task may have.
    pub(super) fn folders(self) -> impl Iterator<Item = &'static [&'static str]> {
        self.rows().iter().map(|(folders, _, _)| *folders)
    }
}

/// Whether a folder holds the task of this name: they are the same name, or both are names of one published task.
pub fn is_same_task(folder: &str, task: &str) -> bool {
    let mut rows = Preset::ALL.into_iter().flat_map(Preset::folders);
    slug(folder) == slug(task)
        || rows.any(|names| names.contains(&folder) && names.iter().any(|name| slug(name) == slug(task)))
}

/// A folder's name as the name of a task.
pub(super) fn slug(folder: &str) -> String {
    let lower = folder.to_ascii_lowercase();
    let kept = lower.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' });
    kept.collect::<String>().trim_matches('-').to_owned()
}
