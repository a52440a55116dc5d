"""Models of real hosts for a synthesis: ComfyUI workflows, and local folders of diffusers and transformers.

A workflow in API form is filled as a row of a bulk run is (:mod:`contextgen_core.bulk.graph`): a painter's gets
`prompt`, `seed`, and `layout` where it has a node with one (else width and height); an editor's `prompt`, `seed`, and
its pictures for its Load Image nodes in their order. The editor's second workflow makes one picture of several
subjects: that of ContextGen itself, for instance.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ...errors import InputError
from ...hosts.eyes import GroundingDino
from ...input.bounded_json import parse
from ...input.checks import shorten
from ...layout.box import Box
from ...layout.layout import Layout
from ..graph import Graph
from ..hosts import ComfyBackend
from ..score import scorer
from ..table import Row, read
from .draft import Cutting, Found, Story

if TYPE_CHECKING:
    from .models import Hosting

MOST_WORDS = 4000
GROUND = "on a plain light grey background, the whole subject in sight, nothing else in the picture"
# The shares of the kinds of changes are those of ContextGen's data: light and place 0.4, motion 0.1, camera 0.5.
_CHANGES = (
    (0.4, ("lit by a low warm sun from the left", "in cold evening light", "under hard light from above",
           "in soft light from a window on the right", "by candle light")),
    (0.1, ("in the middle of a movement", "just about to move", "in another natural pose")),
    (0.5, ("seen from 30 degrees to the left", "seen from 45 degrees to the right", "seen from 60 degrees to the left",
           "seen from the side", "seen a little from above")),
)  # fmt: skip


def change_of(seed: int) -> str:
    """How another view of a subject differs."""
    rng = np.random.default_rng(seed)
    kind = int(rng.choice(len(_CHANGES), p=[share for share, _ in _CHANGES]))
    return _CHANGES[kind][1][int(rng.integers(len(_CHANGES[kind][1])))]


def alone_words(phrase: str) -> str:
    return f"{phrase}, {GROUND}"


def repaint_words(phrase: str, seed: int) -> str:
    return f"The same {phrase}, {change_of(seed)}, {GROUND}"


def empty_words(story: Story) -> str:
    return f"Remove {', '.join(story.phrases)}. Keep {story.place} as it is, with nothing in it"


# ---- ComfyUI ---------------------------------------------------------------------------------------


class _Workflow:
    """A workflow at work: values in, a picture out."""

    def __init__(self, file: Path, hosting: Hosting) -> None:
        self.graph = Graph.read(file)
        self.backend = ComfyBackend(
            self.graph, hosting.comfy, hosting.path, hosting.python, hosting.arguments, hosting.timeout, hosting.threads
        )
        self.worker = self.backend.open()

    def __call__(self, values: Mapping[str, Any], seed: int, pictures: Sequence[np.ndarray] = ()) -> np.ndarray:
        with tempfile.TemporaryDirectory(prefix="contextgen-synthesis-") as folder:
            files = []
            for k, pixels in enumerate(pictures):
                Image.fromarray(pixels).save(Path(folder) / f"{k}.png")
                files.append(f"{k}.png")
            more = {"references": files} if files else {}
            row = Row(0, "0", {**values, **more, "seed": seed})
            made = self.worker.make(self.backend.prepare(row, Path(folder)), [seed])[0]
        with Image.open(io.BytesIO(made.picture)) as image:
            return np.asarray(image.convert("RGB"))

    def sized(self, width: int, height: int) -> dict[str, int]:
        """Columns that set the picture's size, where the workflow has one place for it."""
        sizes = {"width": width, "height": height}
        return {name: size for name, size in sizes.items() if len(self.graph.places(name)) == 1}

    def close(self) -> None:
        self.worker.close()


class ComfyPainter:
    def __init__(self, file: Path, hosting: Hosting) -> None:
        self.run = _Workflow(file, hosting)
        self.follows = bool(self.run.graph.places("layout"))

    def paint(self, story: Story, layout: Layout, seed: int) -> np.ndarray:
        phrases = replace(layout, instances=tuple(replace(i, reference=None) for i in layout.instances))
        where = {"layout": phrases.to_json()} if self.follows else self.run.sized(layout.width, layout.height)
        return self.run({"prompt": story.prompt, **where}, seed)

    def alone(self, phrase: str, seed: int, side: int) -> np.ndarray:
        empty = {"layout": Layout(side, side).to_json()} if self.follows else self.run.sized(side, side)
        return self.run({"prompt": alone_words(phrase), **empty}, seed)

    def close(self) -> None:
        self.run.close()


class ComfyEditor:
    def __init__(self, file: Path, *more: Any) -> None:
        *second, hosting = more
        self.single = _Workflow(file, hosting)
        self.several = _Workflow(second[0], hosting) if second else None

    def repaint(self, cutting: Cutting, phrase: str, seed: int, side: int) -> np.ndarray:
        values = {"prompt": repaint_words(phrase, seed), **self.single.sized(side, side)}
        return self.single(values, seed, [cutting.on_grey])

    def empty(self, picture: np.ndarray, story: Story, seed: int) -> np.ndarray:
        height, width = picture.shape[:2]
        made = self.single({"prompt": empty_words(story), **self.single.sized(width, height)}, seed, [picture])
        return fitted(made, width, height)

    def unite(self, cuttings: Sequence[Cutting], story: Story, layout: Layout, seed: int) -> np.ndarray:
        if self.several is None:
            raise InputError("the kind flexible needs the editor's second workflow; give --editor comfy=ONE,SEVERAL.")
        values: dict[str, Any] = {"prompt": story.prompt, **self.several.sized(layout.width, layout.height)}
        if self.several.graph.places("layout"):
            values["layout"] = bound(layout).to_json()
        return self.several(values, seed, [np.dstack([c.pixels, c.mask]) for c in cuttings])

    def close(self) -> None:
        for one in (self.single, self.several):
            if one is not None:
                one.close()


def bound(layout: Layout) -> Layout:
    """The layout with its instances bound to references by their order."""
    instances = (replace(instance, reference=k) for k, instance in enumerate(layout.instances, 1))
    return replace(layout, instances=tuple(instances))


def fitted(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    same = picture.shape[:2] == (height, width)
    return picture if same else np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS))


# ---- diffusers -------------------------------------------------------------------------------------


def _pipeline(kind: str, folder: Path, hosting: Hosting) -> Any:
    import diffusers
    import torch

    torch.set_num_threads(hosting.threads)
    number = torch.float32 if hosting.device == "cpu" else torch.bfloat16
    try:
        made = getattr(diffusers, kind).from_pretrained(str(folder), torch_dtype=number, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = shorten(" ".join(str(error).split()), 120)
        raise InputError(f"{shorten(str(folder), 80)} cannot be opened as a pipeline ({reason}).") from None
    made.set_progress_bar_config(disable=True)
    return made.to(hosting.device)


def _made(pipeline: Any, seed: int, hosting: Hosting, **values: Any) -> np.ndarray:
    import torch

    noise = torch.Generator().manual_seed(seed)  # on the CPU: the same on every device
    images = pipeline(generator=noise, num_inference_steps=hosting.steps, **values).images
    return np.asarray(images[0].convert("RGB"))


class DiffusersPainter:
    """Any text-to-image pipeline; where subjects stand is found out afterwards."""

    def __init__(self, folder: Path, hosting: Hosting) -> None:
        self.hosting = hosting
        self.pipeline = _pipeline("AutoPipelineForText2Image", folder, hosting)

    def paint(self, story: Story, layout: Layout, seed: int) -> np.ndarray:
        return _made(self.pipeline, seed, self.hosting, prompt=story.prompt, width=layout.width, height=layout.height)

    def alone(self, phrase: str, seed: int, side: int) -> np.ndarray:
        return _made(self.pipeline, seed, self.hosting, prompt=alone_words(phrase), width=side, height=side)


class KontextEditor:
    """FLUX.1-Kontext; several subjects go into one picture by ContextGen, with its adapter where one is given."""

    def __init__(self, folder: Path, *more: Any) -> None:
        from ...hosts.diffusers import merge_adapter
        from ...lora.adapter import load_adapter
        from ...verbs import DiffusersModel

        *adapter, self.hosting = more
        self.pipeline = _pipeline("FluxKontextPipeline", folder, self.hosting)
        self.model: DiffusersModel | None = None
        if adapter:
            whole = _pipeline("FluxKontextPipeline", folder, self.hosting)
            merge_adapter(whole.transformer, load_adapter(adapter[0]))
            self.model = DiffusersModel.from_pipeline(whole)

    def _edited(self, picture: np.ndarray, words: str, seed: int, width: int, height: int) -> np.ndarray:
        image = Image.fromarray(picture)
        return fitted(
            _made(self.pipeline, seed, self.hosting, image=image, prompt=words, width=width, height=height),
            width, height,
        )  # fmt: skip

    def repaint(self, cutting: Cutting, phrase: str, seed: int, side: int) -> np.ndarray:
        return self._edited(cutting.on_grey, repaint_words(phrase, seed), seed, side, side)

    def empty(self, picture: np.ndarray, story: Story, seed: int) -> np.ndarray:
        height, width = picture.shape[:2]
        return self._edited(picture, empty_words(story), seed, width, height)

    def unite(self, cuttings: Sequence[Cutting], story: Story, layout: Layout, seed: int) -> np.ndarray:
        import torch

        from ...composite.compose import compose
        from ...composite.references import Reference
        from ...methods.contextgen.prompt import wrap
        from ...verbs import prepare, sample

        if self.model is None:
            raise InputError("the kind flexible needs ContextGen's adapter; give --editor kontext=FOLDER,ADAPTER.")
        references = [Reference(str(k), c.pixels, c.mask) for k, c in enumerate(cuttings, 1)]
        with torch.no_grad():
            text, pooled, _ = self.pipeline.encode_prompt(
                prompt=wrap(story.prompt), prompt_2=None, max_sequence_length=512
            )
        prepared = prepare(compose(bound(layout), references))
        return sample(self.model, prepared, text, pooled, steps=self.hosting.steps, seed=seed)[0]


# ---- transformers ----------------------------------------------------------------------------------


class GroundedSegmenter:
    """Grounding DINO finds the phrase, SAM cuts it out of its box. Of several boxes the one that agrees most with the
    plan is taken, without a plan the largest."""

    def __init__(self, dino: Path, sam: Path, hosting: Hosting) -> None:
        from ...cutout.sam import Segmenter

        self.eye = GroundingDino(str(dino), device=hosting.device)
        self.knife = Segmenter.from_file(sam).to(hosting.device)

    def find(self, picture: np.ndarray, phrase: str, place: str, near: Box | None) -> Found | None:
        height, width = picture.shape[:2]
        boxes = [box.clipped(width, height) for box in self.eye(picture, phrase, place)]
        boxes = [box for box in boxes if box.area]
        if not boxes:
            return None
        box = max(boxes, key=lambda b: b.area if near is None else _shared(b, near))
        proposed = self.knife.propose(picture, box=box)
        inside = np.zeros((height, width), bool)
        inside[int(box.y1) : int(np.ceil(box.y2)), int(box.x1) : int(np.ceil(box.x2))] = True
        return Found(box, proposed.masks[proposed.best()] & inside)


def _shared(a: Box, b: Box) -> float:
    return max(min(a.x2, b.x2) - max(a.x1, b.x1), 0.0) * max(min(a.y2, b.y2) - max(a.y1, b.y1), 0.0) / a.area


class DepthEstimator:
    """Any depth estimator of transformers. Those that give a disparity (Depth Anything, MiDaS) are turned round, with
    the nearest point at distance 1 and the farthest at most at 20."""

    def __init__(self, folder: Path, hosting: Hosting) -> None:
        from ...hosts.eyes import loaded

        self.device = hosting.device
        self.processor = loaded("AutoImageProcessor", str(folder))
        self.model = loaded("AutoModelForDepthEstimation", str(folder), use_safetensors=True).to(self.device).eval()
        self.metric = getattr(self.model.config, "depth_estimation_type", "relative") == "metric"

    def measure(self, picture: np.ndarray, found: Sequence[Found]) -> np.ndarray:
        import torch

        inputs = self.processor(images=Image.fromarray(picture), return_tensors="pt").to(self.device)
        with torch.inference_mode():
            guess = self.model(**inputs).predicted_depth
        whole = torch.nn.functional.interpolate(guess[None].float(), picture.shape[:2], mode="bicubic")[0, 0]
        values = whole.cpu().numpy().astype(np.float32)
        if self.metric:
            return np.where(values > 0, values, np.inf).astype(np.float32)
        most = float(values.max())
        return (1 / np.clip(values / most, 0.05, 1) if most > 0 else np.full_like(values, np.inf)).astype(np.float32)


class Features:
    """The features of a scorer of bulk runs."""

    def __init__(self, name: str) -> None:
        self.embed = scorer(name)().embed  # type: ignore[attr-defined]  identity scorers have it


def _features(kind: str) -> Any:
    def opened(*more: Any) -> Features:
        *folder, _ = more
        return Features(f"{kind}={folder[0]}" if folder else kind)

    return opened


# ---- words -----------------------------------------------------------------------------------------


def read_story(value: object, count: int, where: str) -> Story:
    """A story from {"place": .., "subjects": [..], "prompt": ..}, the first `count` subjects of it; without a prompt
    they are put together. Raises InputError."""
    place = value.get("place") if isinstance(value, Mapping) else None
    subjects = value.get("subjects") if isinstance(value, Mapping) else None
    texts = [place, *subjects] if isinstance(subjects, list) else [None]
    if not all(isinstance(text, str) and 0 < len(text.strip()) <= MOST_WORDS for text in texts):
        raise InputError(
            f"{where} is {shorten(value, 80)}; write an object with place and subjects, all of them texts."
        )
    assert isinstance(value, Mapping) and isinstance(place, str) and isinstance(subjects, list)  # noqa: S101
    if len(subjects) < count:
        raise InputError(f"{where} has {len(subjects)} subjects, {count} are asked for; lower --subjects or add some.")
    phrases = tuple(" ".join(text.split()) for text in subjects[:count])
    prompt = value.get("prompt") if len(subjects) == count else None
    if not isinstance(prompt, str) or not prompt.strip():
        prompt = f"{', '.join(phrases)}; {place.strip()}"
    return Story(prompt.strip()[:MOST_WORDS], place.strip(), phrases)


class StoryFile:
    """Stories from a table, one a sample, from the first again after the last."""

    def __init__(self, file: Path, hosting: Hosting) -> None:
        self.name = file.name
        self.rows = list(read(file))
        if not self.rows:
            raise InputError(f"{file.name} has no stories; write one a line.")

    def story(self, seed: int, number: int, count: int) -> Story:
        place = number % len(self.rows)
        value, problem = self.rows[place]
        if problem:
            raise InputError(f"{self.name}, story {place + 1}: {problem}")
        return read_story(value, count, f"{self.name}, story {place + 1}")


class LanguageWriter:
    """A causal language model of transformers that is asked for JSON; what is not JSON is asked for anew, three times
    in all."""

    def __init__(self, folder: Path, hosting: Hosting) -> None:
        from ...hosts.eyes import loaded

        self.device = hosting.device
        self.tokenizer = loaded("AutoTokenizer", str(folder))
        self.model = loaded("AutoModelForCausalLM", str(folder), use_safetensors=True).to(self.device).eval()

    def story(self, seed: int, number: int, count: int) -> Story:
        problem = InputError("the language model was not asked.")
        for attempt in range(3):
            text = self._said(story_request(count, seed), seed + attempt)
            start, end = text.find("{"), text.rfind("}") + 1
            try:
                return read_story(parse(text[start:end] or "null", "the answer").value, count, "the answer")
            except InputError as error:
                problem = error
        raise InputError(f"the language model gave no story in three attempts ({shorten(problem.message, 120)})")

    def _said(self, request: str, seed: int) -> str:
        import torch

        messages = [{"role": "user", "content": request}]
        inputs = self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        ).to(self.device)
        torch.manual_seed(seed % 2**63)
        with torch.inference_mode():
            said = self.model.generate(**inputs, max_new_tokens=400, do_sample=True, temperature=1.0, top_p=0.95)
        return self.tokenizer.decode(said[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


_THEMES = ("a street", "a kitchen", "a workshop", "a forest", "a beach", "a stage", "a market", "a farm", "a library",
           "a garden", "a harbour", "a mountain hut", "a school", "a museum", "a railway station")  # fmt: skip


def story_request(count: int, seed: int) -> str:
    """What a language model is asked."""
    theme = _THEMES[int(np.random.default_rng(seed).integers(len(_THEMES)))]
    example = {"place": "...", "subjects": ["..."] * count, "prompt": "..."}
    return (
        f"Think of a photograph in or near {theme} that shows {count} things, people or animals, each of another kind."
        " Answer with JSON alone, in this form: " + json.dumps(example) + ". place: the place and its light in a few"
        " words; subjects: what each one is and how it looks, in at most eight words each; prompt: one sentence that"
        " describes the whole photograph and names all of them."
    )


MODELS: dict[tuple[str, str], Any] = {
    ("writer", "stories"): StoryFile,
    ("writer", "language"): LanguageWriter,
    ("painter", "comfy"): ComfyPainter,
    ("painter", "diffusers"): DiffusersPainter,
    ("segmenter", "grounded"): GroundedSegmenter,
    ("editor", "comfy"): ComfyEditor,
    ("editor", "kontext"): KontextEditor,
    ("depth", "depth"): DepthEstimator,
    ("identity", "efficientnet"): _features("efficientnet"),
    ("identity", "faces"): _features("faces"),
    ("identity", "vision"): _features("vision"),
}
