//! PEFT's files: what is written is read, and what cannot be used is refused by name.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

use fwd_adapters::{AdapterError, Lora, LoraConfig, Module, read, write};
use std::fs;
use std::path::Path;

fn lora(config: &LoraConfig) -> Lora {
    let module = |name: &str, n_out, n_in| Module { name: name.into(), n_out, n_in };
    let modules = [module("layers.0.q_proj", 4, 6), module("layers.0.mlp.fc1", 5, 3)];
    let mut lora = Lora::new(&modules, config, 7, 1);
    lora.values_mut().iter_mut().enumerate().for_each(|(i, x)| *x += i as f32 * 0.01);
    lora
}

#[test]
fn an_adapter_is_read_as_it_was_written() {
    for use_rslora in [false, true] {
        let config = LoraConfig { rank: 3, alpha: 5.0, use_rslora, ..LoraConfig::default() };
        let (lora, dir) = (lora(&config), tempfile::tempdir().unwrap());
        write(&dir.path().join("adapter"), &lora, &config).unwrap();
        let again = read(&dir.path().join("adapter")).unwrap();
        for module in lora.modules() {
            assert_eq!(again.factors(&module.name), lora.factors(&module.name), "{}", module.name);
        }
        assert_eq!(again.modules().count(), 2);
        // Under another configuration it would be read with another scale.
        let refused = write(dir.path(), &lora, &LoraConfig { rank: 2, ..config }).unwrap_err().to_string();
        assert!(refused.contains("rank 3"), "{refused}");
    }
}

#[test]
fn experts_are_written_one_by_one_under_the_names_of_coin() {
    let modules = [Module { name: "q_proj".into(), n_out: 3, n_in: 5 }];
    let config = LoraConfig { rank: 4, experts: 2, ..LoraConfig::default() };
    let mut lora = Lora::with_experts(&modules, &config, 7, 1);
    lora.values_mut().iter_mut().enumerate().for_each(|(i, x)| *x = i as f32);
    let dir = tempfile::tempdir().unwrap();
    let odd = LoraConfig { experts: 3, ..config.clone() };
    let refused = write(dir.path(), &Lora::with_experts(&modules, &odd, 7, 1), &odd).unwrap_err().to_string();
    assert!(refused.contains("rank 4") && refused.contains("q_proj"), "{refused}");
    write(dir.path(), &lora, &config).unwrap();
    let bytes = fs::read(dir.path().join("adapter_model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let values = |name: &str| -> Vec<f32> {
        let tensor = tensors.tensor(&format!("base_model.model.q_proj.lora_{name}.weight")).unwrap();
        tensor.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    };
    let range = |from: usize, n: usize| (from..from + n).map(|i| i as f32).collect::<Vec<_>>();
    assert_eq!(tensors.len(), 5);
    assert_eq!(values("A.loraA.1.mlp"), range(10, 10));
    // B is (3, 4) from 20 on; the second expert has its last two columns.
    assert_eq!(values("B.loraB.1.mlp"), [22.0, 23.0, 26.0, 27.0, 30.0, 31.0]);
    assert_eq!(values("router"), range(32, 10));
    let json = fs::read_to_string(dir.path().join("adapter_config.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["peft_type"], &json["expert_num"]), (&"MOE_LORA_CoIN".into(), &2.into()));
    assert!(read(dir.path()).unwrap_err().to_string().contains("MOE_LORA_CoIN"));
}

/// An adapter of which the configuration, or a tensor's name, was changed.
fn refused(change: impl FnOnce(&Path)) -> String {
    let config = LoraConfig { rank: 3, ..LoraConfig::default() };
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &lora(&config), &config).unwrap();
    read(dir.path()).unwrap();
    change(dir.path());
    let refused = read(dir.path()).unwrap_err();
    let source = std::error::Error::source(&refused).map(ToString::to_string);
    assert!(matches!(refused, AdapterError::File { .. } | AdapterError::Io { .. }));
    format!("{refused} {}", source.unwrap_or_default())
}

fn replace(path: &Path, from: &[u8], to: &[u8]) {
    assert_eq!(from.len(), to.len());
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to);
    fs::write(path, bytes).unwrap();
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    let with = |key: &str, value: serde_json::Value| {
        let key = key.to_owned();
        refused(move |dir| {
            let path = dir.join("adapter_config.json");
            let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            config[&key] = value;
            fs::write(path, config.to_string()).unwrap();
        })
    };
    for (key, value, named) in [
        ("peft_type", "IA3".into(), "IA3"),
        ("use_dora", true.into(), "use_dora"),
        ("fan_in_fan_out", true.into(), "fan_in_fan_out"),
        ("bias", "all".into(), "bias"),
        ("modules_to_save", serde_json::json!(["lm_head"]), "lm_head"),
        ("alpha_pattern", serde_json::json!({"q_proj": 3}), "alpha_pattern"),
        ("init_lora_weights", "pissa_niter_4".into(), "pissa_niter_4"),
        ("alora_invocation_tokens", serde_json::json!([3, 5]), "alora_invocation_tokens"),
        ("lora_alpha", 0.into(), "lora_alpha is 0"),
        ("lora_alpha", "x".into(), "expected f64"),
    ] {
        let refused = with(key, value);
        assert!(refused.contains(named) && refused.contains("adapter_config.json"), "{refused}");
    }
    let of_tensors = |from: &'static [u8], to: &'static [u8]| {
        refused(move |dir| replace(&dir.join("adapter_model.safetensors"), from, to))
    };
    let unknown = of_tensors(b"q_proj.lora_A", b"q_proj.lora_X");
    assert!(unknown.contains("layers.0.q_proj.lora_X.weight"), "{unknown}");
    let alone = of_tensors(b"q_proj.lora_A", b"k_proj.lora_A");
    assert!(alone.contains("k_proj` has only one"), "{alone}");
    let missing = refused(|dir| fs::remove_file(dir.join("adapter_model.safetensors")).unwrap());
    assert!(missing.contains("adapter_model.safetensors"), "{missing}");
    let short = refused(|dir| {
        let path = dir.join("adapter_model.safetensors");
        let bytes = fs::read(&path).unwrap();
        fs::write(path, &bytes[..bytes.len() - 8]).unwrap();
    });
    assert!(short.contains("copy it again"), "{short}");
    let broken = refused(|dir| {
        let path = dir.join("adapter_model.safetensors");
        let mut bytes = fs::read(&path).unwrap();
        let n = bytes.len();
        bytes[n - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
        fs::write(path, bytes).unwrap();
    });
    assert!(broken.contains("not finite") && broken.contains("q_proj"), "{broken}");
}
