"""How the networks of the zoo are trained: their data, task, network and stepper."""

from dataclasses import replace
from functools import partial

import torch

import dataset
from config.zoo import ZooConfig
from dataset import Data
from sources.packing import Packed
from training.data_parallel import DataParallelStepper
from training.process_group import SINGLE_PROCESS, SingleProcess
from training.protocols import Log, Training
from training.steps import GradientStepper
from zoo.chain import is_chain, leave_out_root, mend_chain, note_breaks, require_chain
from zoo.labels import Labeller, note_positives
from zoo.networks import build_network
from zoo.task import LabelTask

NO_CHAIN = "the labels are learned independently (--chain none): none of them is a condition for another"


class ZooRecipe:
    """Any network of zoo.networks, on labels of 0 and 1."""

    def load_data(self, config: ZooConfig) -> Data:
        """The data, with mended labels where the config says so, and without those that are the root of the chain."""
        data = dataset.load(**config.data_options)
        if config.feedback is None:
            return data
        if config.mend_chain:
            data = mend_chain(data)
        if not config.negatives:
            data = note_positives(data if config.chain == "none" else leave_out_root(data))
        return note_breaks(data) if config.chain == "auto" else data

    def unpack(self, packed: Packed) -> Data:
        return Data.unpack(packed)

    def resolve(self, config: ZooConfig, data: Data, log: Log) -> ZooConfig:
        """Take the labels that are learned, and decide --chain auto by the data.

        Raises:
            UserError: the config needs labels that form a chain, and they do not; or one of them cannot be learned.
        """
        if data.labels:
            config = config.with_last_labels(len(data.labels))
        Labeller(data, config.label_names, config.like_from, config.negatives).require_learnable(data.train)
        if config.needs_chain:
            require_chain(data)
        if config.chain != "auto":
            return config
        return replace(config, chain="joint" if is_chain(data) else "none")

    def check_processes(self, config: ZooConfig, num_processes: int) -> None:
        """Any number of processes can share this training."""

    def build(
        self, config: ZooConfig, data: Data, device: torch.device, group: SingleProcess = SINGLE_PROCESS
    ) -> Training:
        data = data.to(device)
        task = make_task(config, data)
        options = {name: getattr(config, name) for name in config.network_fields()}
        torch.manual_seed(config.seed)
        model = build_network(config.model, len(data.users), len(data.items), tasks=config.label_names, **options)
        make = partial(DataParallelStepper, group=group) if group.world_size > 1 else GradientStepper
        return Training(model.to(device), task, make, (NO_CHAIN,) if config.chain == "none" else ())


RECIPE = ZooRecipe()


def make_task(config: ZooConfig, data: Data) -> LabelTask:
    """The task of a resolved config."""
    return LabelTask(
        data,
        labels=config.label_names,
        batch_size=config.batch_size,
        negatives=config.negatives,
        like_from=config.like_from,
        chain=config.chain,
        calibrate=bool(config.calibrator),
        mends_chain=config.mend_chain,
        seed=config.seed,
    )
