//! Tests of decisions, over a table of devices and models.

use super::*;

const CUDA: DeviceName = DeviceName::cuda(0);

/// Two cores with AVX2.
fn cpu() -> Capability {
    Capability {
        device: DeviceName::CPU,
        description: "cpu".to_owned(),
        flops: 144e9,
        speeds: vec![(Precision::Int8, 1.8)],
        bandwidth: 20e9,
        fixed: 50e-6,
        memory: Some(8 << 30),
    }
}

/// Roughly an A100.
fn gpu() -> Capability {
    Capability {
        device: CUDA,
        description: "gpu".to_owned(),
        flops: 10e12,
        speeds: Vec::new(),
        bandwidth: 1.1e12,
        fixed: 700e-6,
        memory: Some(16 << 30),
    }
}

fn demand(parameters: u64, flops: f64, bytes_per_weight: u64) -> Demand {
    Demand { weight_bytes: 4 * parameters, flops_per_weight: flops, bytes_per_weight, unit: "token" }
}

/// Roughly the demands of tiny-bert-sentiment, MiniLM and BERT large.
fn models() -> [(&'static str, Demand); 3] {
    [
        ("tiny", demand(1_500_000, 1e6, 6_000)),
        ("minilm", demand(22_700_000, 22e6, 21_000)),
        ("large", demand(335_000_000, 640e6, 50_000)),
    ]
}

fn offer(capability: Capability, demand: Demand) -> Offer {
    Offer { capability, demand: Ok((Precision::F32, demand)) }
}

fn verdicts(placement: Placement, offers: &[Offer]) -> Vec<(Verdict, Why)> {
    decide(placement, 8192, offers).unwrap().considered.into_iter().map(|it| (it.verdict, it.why)).collect()
}

#[test]
fn small_batches_go_to_the_cpu_and_large_ones_to_the_gpu_from_a_weight_that_the_size_of_the_model_decides() {
    let crossovers: Vec<usize> = models()
        .map(|(name, demand)| {
            let verdicts = verdicts(Placement::Auto, &[offer(cpu(), demand), offer(gpu(), demand)]);
            match &verdicts[..] {
                [(Verdict::Serves, Why::First { from: 1, to }), (Verdict::Serves, Why::First { from, to: 8192 })] => {
                    assert_eq!(from - to, 1, "{name}: nothing is left out");
                    *from
                }
                // The CPU takes longer to read the weights than the GPU takes for the whole batch.
                [(Verdict::Standby, Why::NeverFirst), (Verdict::Serves, Why::First { from: 1, to: 8192 })] => 1,
                other => panic!("{name}: {other:?}"),
            }
        })
        .into();
    assert!((20..200).contains(&crossovers[0]), "{crossovers:?}");
    assert_eq!(crossovers[1..], [1, 1], "{crossovers:?}");
}

#[test]
fn a_crossover_is_where_both_lines_meet() {
    let demand = models()[0].1;
    let decision = decide(Placement::Auto, 8192, &[offer(cpu(), demand), offer(gpu(), demand)]).unwrap();
    let [light, heavy] = [0, 1].map(|at| decision.considered[at].estimate.unwrap());
    let weight = decision.crossover(light, heavy).unwrap();
    assert!(light.at(weight) >= heavy.at(weight) && light.at(weight - 1) < heavy.at(weight - 1), "{weight}");
    assert_eq!(decision.crossover(heavy, heavy), None, "they never meet");
    assert_eq!(
        decision.crossover(CostLine { fixed: 1.0, per_weight: 1.0 }, light),
        None,
        "the second is first from 1 on"
    );
}

#[test]
fn what_is_asked_for_is_done_and_only_the_cpu_stands_by() {
    let both = || vec![offer(cpu(), models()[1].1), offer(gpu(), models()[1].1)];
    let on = |device| verdicts(Placement::On(device), &both());
    assert_eq!(on(DeviceName::CPU), [(Verdict::Serves, Why::Asked), (Verdict::Unused, Why::AskedElsewhere)]);
    assert_eq!(on(CUDA), [(Verdict::Standby, Why::AskedElsewhere), (Verdict::Serves, Why::Asked)]);
}

#[test]
fn memory_must_hold_the_weights_and_the_heaviest_batch() {
    let (_, demand) = models()[2];
    let needed = demand.bytes(8192);
    for (memory, fits) in [(needed, true), (needed - 1, false)] {
        let small = Capability { memory: Some(memory), ..gpu() };
        let verdicts = verdicts(Placement::Auto, &[offer(cpu(), demand), offer(small, demand)]);
        let expected = if fits { Why::First { from: 1, to: 8192 } } else { Why::NoRoom { needed, memory } };
        assert_eq!(verdicts[1].1, expected);
        assert_eq!(verdicts[0].0, if fits { Verdict::Standby } else { Verdict::Serves });
    }
    let unbounded = Capability { memory: None, ..gpu() };
    assert_eq!(verdicts(Placement::On(CUDA), &[offer(unbounded, demand)]), [(Verdict::Serves, Why::Asked)]);
}

#[test]
fn a_precision_that_a_device_does_not_have_keeps_the_model_off_it() {
    let demand = models()[1].1;
    let reason = "no int8 there".to_owned();
    let gpu = Offer { capability: gpu(), demand: Err(reason.clone()) };
    let int8 = Offer { capability: cpu(), demand: Ok((Precision::Int8, demand)) };
    let decision = decide(Placement::Auto, 8192, &[int8, gpu.clone()]).unwrap();
    assert_eq!(decision.considered[1].why, Why::CannotRun(reason));
    assert_eq!(decision.considered[0].why, Why::First { from: 1, to: 8192 });
    let f32 = decide(Placement::Auto, 8192, &[offer(cpu(), demand), gpu]).unwrap();
    let per_weight = |decision: &Decision| decision.considered[0].estimate.unwrap().per_weight;
    assert!((per_weight(&f32) / per_weight(&decision) - 1.8).abs() < 1e-9, "int8 is faster on the CPU");
}

#[test]
fn of_devices_that_are_alike_the_first_serves() {
    let second = Capability { device: DeviceName::cuda(1), ..gpu() };
    let demand = models()[2].1;
    let verdicts = verdicts(Placement::Auto, &[offer(gpu(), demand), offer(second, demand)]);
    assert_eq!(verdicts.iter().map(|(verdict, _)| *verdict).collect::<Vec<_>>(), [Verdict::Serves, Verdict::Unused]);
}

#[test]
fn a_model_that_runs_nowhere_is_refused_with_the_reason_of_each_device() {
    let demand = models()[0].1;
    let refused = |placement, offers: Vec<Offer>| decide(placement, 8192, &offers).unwrap_err().to_string();
    let cuda1 = Placement::On(DeviceName::cuda(1));
    assert_eq!(
        refused(cuda1, vec![offer(cpu(), demand), offer(gpu(), demand)]),
        "there is no device cuda:1; there are: cpu, cuda:0"
    );
    let tiny = |capability| Capability { memory: Some(1 << 20), ..capability };
    let message = refused(Placement::Auto, vec![offer(tiny(cpu()), demand), offer(tiny(gpu()), demand)]);
    assert_eq!(
        message,
        "it runs on none of its devices: cpu: 52.6 MiB are needed, and there are 1.0; \
         cuda:0: 52.6 MiB are needed, and there are 1.0"
    );
    let message = refused(Placement::On(CUDA), vec![offer(cpu(), demand), offer(tiny(gpu()), demand)]);
    assert!(message.starts_with("it runs on none of its devices: cuda:0: 52.6 MiB"), "{message}");
}
