"""The stages of an audit, in the candidate's process; each adds to the records."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from bench import data
from bench.attacks import ATTACKS
from bench.auditing.attacking import attack
from bench.auditing.clean import predict_clean
from bench.auditing.given import check_runs, check_witnesses
from bench.auditing.isolation import Kept
from bench.auditing.job import Job, Log
from bench.auditing.records import FILE, Isolation, Loaded, Order
from bench.candidates import Candidate
from bench.candidates.named.model_files import with_architecture
from bench.candidates.registry import find_candidate
from bench.data import Dataset
from bench.plugins import load_plugins
from bench.precision import tensor_cores
from bench.runs.capabilities import applicable, capabilities
from bench.runs.devices import torch_device
from bench.runs.fingerprint import probe_images, probed
from bench.suites import load_suite


def work(order_file: Path, kept: Kept) -> None:
    """Do what an order asks for, stage by stage."""
    start = time.monotonic()
    order = Order.model_validate_json(order_file.read_text(encoding="utf-8"))
    load_plugins()
    log = Log(Path(order.out) / FILE, Isolation(**vars(kept)))
    job = Job(order, load_suite(order.suite), log, start)
    found: list[tuple[Candidate, Dataset, torch.device]] = []
    with log.stage("load"):
        found.append(_load(job))
    for candidate, dataset, device in found:
        with tensor_cores(False):
            with log.stage("clean"):
                log.records.clean = predict_clean(job, candidate, dataset, device)
            for file in order.witnesses:
                with log.stage(f"witnesses {Path(file).name}"):
                    log.records.witnesses.append(
                        check_witnesses(job, file, candidate, dataset, device)
                    )
            if order.results is not None:
                with log.stage("results"):
                    check_runs(job, Path(order.results), candidate, device)
        with log.stage("express"):
            attack(job, candidate, dataset, device)
    log.records.finished = True
    log.records.stage = "end"
    log.write()


def _load(job: Job) -> tuple[Candidate, Dataset, torch.device]:
    """Load the candidate and the whole test set; note what the candidate is."""
    start = time.monotonic()
    order, suite = job.order, job.suite
    device = torch_device(order.device)
    (name,) = with_architecture((order.candidate,), order.architecture)
    model_dir = None if order.model_dir is None else Path(order.model_dir)
    # Its code may run: this process is there for that.
    candidate = find_candidate(name, suite, model_dir, trust_code=True).load()
    dataset = data.load_source(suite.data, job.data_dir, suite.n_examples, candidate.preprocessing)
    module = candidate.module.to(device)
    few = dataset.images[:4].to(device)
    asked = [
        each.name
        for each in applicable(suite.protocol("express").attacks, candidate, few)
        if each.name in ATTACKS and ATTACKS[each.name].need
    ]
    information = candidate.information
    answers = probed(candidate, probe_images(tuple(dataset.images.shape[1:])), device)
    if answers.problem:  # noise may be what it refuses
        answers = probed(candidate, dataset.images[:4], device)
    job.log.records.loaded = Loaded(
        name=candidate.name,
        population=len(dataset),
        weights_sha256=candidate.weights_sha256,
        definition_sha256=candidate.definition_sha256,
        unidentified=list(candidate.unidentified),
        notes=[*information.weights, *information.conversions],
        architecture=information.architecture,
        parameters=sum(each.numel() for each in module.parameters()),
        randomized=candidate.randomized,
        is_mix=candidate.mix is not None,
        has_surrogate=candidate.surrogate is not None,
        sigma=candidate.sigma,
        capabilities=sorted(capabilities(candidate, few)),
        adaptive_attacks=asked,
        declared=[f"{each.norm} {each.eps:.6g}" for each in information.threat_models],
        fingerprint_varies=answers.vary,
        fingerprint_problem=answers.problem,
        device=str(device),
        seconds=time.monotonic() - start,
    )
    return candidate, dataset, device
