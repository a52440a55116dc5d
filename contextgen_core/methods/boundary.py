"""What a method says and what hosts carry out: the boundary between the two.

A method (ContextGen, LAMIC, InstanceAssemble, ...) decides what is bound to a box and by which rule. A host (diffusers,
ComfyUI) runs a model. Neither knows the other: a method describes one forward pass as a :class:`Forward`, and every
host carries that out, whichever method speaks.

The life of a picture::

    prepare(scene, options)            once, before the graph runs: plan, pictures and phrases
    check(plan, settings, backbone)    once a run: one sentence for what cannot work
    moment(plan, settings, run)        each step: what of the place in the run matters (a few numbers)
    forward(plan, settings, call)      once for each distinct call; remembered for the run

Tokens of the joint sequence stand in the order ``phrases | text | noise | condition pictures``. Phrases are a method's
further text tokens; condition pictures travel as the host's reference latents. Numbers of tokens are never remembered
from call to call.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ..attention.groups import Group, Span

if TYPE_CHECKING:
    from ..backbones import Additions, Backbone, LowRank, Positions
    from ..composite.compose import Scene


CONTENT = "content"  # name of the vector (B, tokens, 64) of :attr:`Prepared.content`, latents as the model reads them


@dataclass(frozen=True)
class Prepared:
    """A scene as one method takes it.

    method    name of the method
    plan      hashable numbers and bytes (:meth:`Method.plan_tuple` makes nested tuples of it for the conditioning)
    pictures  what the VAE encodes, in the plan's order: uint8 (h, w, 3), sides multiples of 16
    phrases   what the text encoder encodes, in the plan's order; their vectors travel beside the plan, not in it
    content   pictures that never join the sequence, form as ``pictures``: their latents travel beside the plan, too,
              packed and one after the other, as the vector :data:`CONTENT`
    gains     factor on each picture's latent once it is scaled as the model reads it; () = none is changed
    negative  whether the method acts on the negative conditioning, too
    warnings  sentences for the user, none of which stops the run
    """

    method: str
    plan: Any
    pictures: tuple[np.ndarray, ...] = ()
    phrases: tuple[str, ...] = ()
    content: tuple[np.ndarray, ...] = ()
    gains: tuple[float, ...] = ()
    negative: bool = False
    warnings: tuple[str, ...] = ()


class RunPosition(Protocol):
    """Where in the sampling run a call stands."""

    def within(self, start: float, end: float) -> bool:
        """Whether the call lies between two shares 0..1 of the run, ends included."""
        ...

    def before_step(self, ratio: float) -> bool:
        """Whether the call comes before step ``int(ratio * steps)`` of this run, by the run's own sigmas."""
        ...


class BlockCounts(NamedTuple):
    """Blocks of a model: those with separate text and image streams, and those with one joint stream."""

    double: int
    single: int

    @property
    def all(self) -> int:
        return self.double + self.single


@dataclass(frozen=True)
class ForwardCall:
    """All that decides a forward pass besides plan and settings; hashable.

    moment     what :meth:`Method.moment` said
    text       text tokens of the conditioning, the method's phrases not counted
    blocks     of the model
    watched    blocks whose whole result somebody else reads: no row may be left out there
    noise      (rows, columns) of the noise in tokens
    references (rows, columns) of the user's own condition pictures, those of no method's plan
    positions  how the family numbers texts and pictures, None: all text has the same id
    """

    moment: Hashable
    text: int
    blocks: BlockCounts
    noise: tuple[int, int]
    watched: frozenset[int] = frozenset()
    references: tuple[tuple[int, int], ...] = ()
    positions: Positions | None = None
    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32


class SwitchedAdapter(Protocol):
    """What a method's extra weights offer where its adapter is switched by segments.

    Names are canonical layer names (:mod:`contextgen_core.backbones`); where tokens are few, so are the products.
    """

    def additions(self, block: int) -> Additions:
        """The low-rank additions of a block, double blocks first."""
        ...

    def embedding(self) -> Sequence[LowRank]:
        """Those of the layer that embeds the image tokens."""
        ...


class Segment(NamedTuple):
    """Tokens whose block computations differ from the rest's; the adapter then comes with the method's modules.

    span      of the joint sequence that enters the first block
    timestep  their own timestep 0..1 for the modulation, None: the current one
    guidance  their own embedded guidance, None: the user's
    adapter   whether the method's adapter acts on them
    """

    span: Span
    timestep: float | None = None
    guidance: float | None = None
    adapter: bool = True


@dataclass
class BlockWork:
    """What a step after a block sees. Tensors may be replaced or, in the noise rows, written in place.

    number   of the block, double blocks first
    double   whether text and image are separate streams here
    image    (B, tokens, D): image tokens, in single blocks of some hosts with the text before them
    text     (B, T, D), or None where the text stands in ``image``
    noise    where the noise stands in ``image``
    vec      (B, D) the modulation's conditioning vector
    rope     rope of the joint sequence in the host's own form
    rope_of  position ids (n, axes) or (B, n, axes) float32 -> rope of those tokens, same form
    block    the block's weights as functions (:mod:`contextgen_core.backbones`)
    modules  the method's extra weights, or None
    vectors  what the conditioning carries beside the plan, by name, each with the batch first
    positive for each row of the batch whether it belongs to the positive conditioning
    state    of this one forward pass: starts empty, lives from block to block
    ran      whether the block itself was computed (a patch may have skipped it)
    """

    number: int
    double: bool
    image: Tensor
    text: Tensor | None
    noise: Span
    vec: Tensor
    rope: Any
    rope_of: Callable[[Tensor], Any]
    block: Any
    modules: Any
    vectors: Mapping[str, Tensor]
    positive: Sequence[bool]
    state: dict[str, Any] = field(default_factory=dict)
    ran: bool = True


@dataclass(frozen=True)
class Block:
    """One block of a forward pass.

    groups  who sees whom over the joint tokens that enter this block; None: everyone sees everyone. Rows in no group
            get zero attention: only rows that nobody reads may be left out
    leave   joint tokens that go on after this block; None: all. Those behind them go for good
    after   a step on the block's result
    """

    groups: tuple[Group, ...] | None = None
    leave: int | None = None
    after: Callable[[BlockWork], None] | None = None


@dataclass(frozen=True)
class Forward:
    """One forward pass as a method wants it.

    blocks      one :class:`Block` for each of the model's
    phrases     text tokens that the method joins before the conditioning's, as many as its vectors have
    conditions  image tokens of the condition pictures, in the order of the reference latents; the noise not counted
    ids         position ids of the image tokens that are kept, float32 (n, 3), noise first; None: the family's own
    kept        which image tokens go in, sorted indices; None: all
    text_ids    position ids of phrases and text, float32 (phrases + text, 3); None: the family's own
    segments    tokens computed differently from the rest; () lets the model's own blocks do all the work
    fixed       joint tokens at the end of the sequence that see only each other and enter every step of a run alike:
                a host may remember their keys and values and leave them out afterwards
    private     what the method's own tools want to find again; no host looks at it
    """

    blocks: tuple[Block, ...]
    phrases: int = 0
    conditions: int = 0
    ids: Tensor | None = None
    kept: np.ndarray | None = None
    text_ids: Tensor | None = None
    segments: tuple[Segment, ...] = ()
    fixed: Span | None = None
    private: Any = None

    def lengths(self, text: int, noise: tuple[int, int]) -> tuple[int, ...]:
        """Joint tokens that enter each block, with ``text`` tokens of the prompt and (rows, columns) of noise."""
        image = noise[0] * noise[1] + self.conditions if self.kept is None else len(self.kept)
        lengths, length = [], self.phrases + text + image
        for block in self.blocks:
            lengths.append(length)
            length = length if block.leave is None else block.leave
        return tuple(lengths)


class Part(NamedTuple):
    """A part of the sequence, for reports: all its tokens, and how many of them are computed with."""

    name: str
    tokens: int
    kept: int


class Method(ABC):
    """One method. Instances have no state: everything lives in plan, settings and call.

    name   its key in registries, conditionings and commands, like "contextgen"
    label  its name in sentences, like "ContextGen"
    node   id of the node that puts it on a model
    source id of the node that puts its plan into a conditioning
    arranges    whether it decides about tokens at all (phrases, ids, kept, groups, segments). Where several do, hosts
                join them: text and noise read of each other what every method lets them read, and a method's further
                tokens (phrases, condition pictures) follow that method alone; then no tokens are fixed
    joins_text  whether its phrases are tokens of the text stream (vectors ``phrases``, as wide as the text's)
    needs_text  whether a plan depends on how the text encoder cuts its phrases, so that a scene alone gives none
    """

    name: str
    label: str
    node: str
    source: str
    arranges: bool = True
    joins_text: bool = False
    needs_text: bool = False

    @abstractmethod
    def prepare(self, scene: Scene, options: Any = None) -> Prepared:
        """The scene as this method takes it. Raises InputError for what it cannot take."""

    @abstractmethod
    def plan_tuple(self, plan: Any) -> tuple[object, ...]:
        """The plan as nested tuples of str, int, float and bytes: what may travel in a conditioning."""

    @abstractmethod
    def plan_from(self, value: object) -> Any:
        """Inverse of :meth:`plan_tuple`. Raises InputError for anything that it cannot have given."""

    @abstractmethod
    def sizes(self, plan: Any) -> tuple[tuple[int, int], tuple[tuple[int, int], ...]]:
        """(rows, columns) in tokens: of the noise, and of each condition picture in order."""

    @abstractmethod
    def default_settings(self) -> Any:
        """Settings as the authors run it."""

    def check(self, plan: Any, settings: Any, backbone: Backbone) -> None:  # noqa: B027 - nothing to refuse
        """Raises InputError for what this family of models cannot do, before sampling."""

    def moment(self, plan: Any, settings: Any, run: RunPosition | None) -> Hashable:
        """What of the place in the run decides the forward pass; ``run`` None: as if everything were active.

        None as a result means that the method does nothing in this call.
        """
        return ()

    def timed(self, plan: Any, settings: Any) -> bool:
        """Whether :meth:`moment` depends on the place in the run at all."""
        return False

    def kernel(self, settings: Any) -> str:
        """The attention kernel the settings ask for (:mod:`contextgen_core.attention`)."""
        return getattr(settings, "kernel", "auto")

    def memory_limit(self, settings: Any) -> int:
        """Bytes that keys and values of fixed tokens (:class:`Forward`) may take in a run; 0: they are not kept."""
        return 0

    def fixed_tokens(self, plan: Any, settings: Any) -> int:
        """How many tokens are fixed in the method's passes."""
        return 0

    def computed_tokens(self, plan: Any, settings: Any) -> int:
        """Condition tokens that one picture computes with at most: for the host's estimate of memory."""
        return sum(rows * columns for rows, columns in self.sizes(plan)[1])

    def parts(self, plan: Any, settings: Any) -> tuple[Part, ...]:
        """The image tokens (and phrases) in parts, as a report lists them behind the text."""
        noise, *pictures = (rows * columns for rows, columns in (self.sizes(plan)[0], *self.sizes(plan)[1]))
        rest = (Part(f"picture {number}", tokens, tokens) for number, tokens in enumerate(pictures, 1))
        return (Part("noise", noise, noise), *rest)

    def worded(self, plan: Any) -> tuple[str, ...]:
        """The boxes whose words a plan uses, by the names that reports call them."""
        return ()

    def notes(self, plan: Any, settings: Any) -> tuple[str, ...]:
        """Sentences for a report about what its figures do not show."""
        return ()

    @abstractmethod
    def forward(self, plan: Any, settings: Any, call: ForwardCall) -> Forward:
        """The forward pass of a call."""


class Bound(NamedTuple):
    """A method at work on one picture: its plan, with the settings that are on the model."""

    method: Method
    plan: Any
    settings: Any
