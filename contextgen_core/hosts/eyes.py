"""The models that scores look through, by way of transformers: a detector, a segmenter, a judge that reads a picture
with a question, features of things, faces and texts. Models are folders or names in the user's cache; nothing is
downloaded, and no code of a model's folder runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from ..errors import InputError
from ..layout.box import Box
from ..layout.matching import iou_matrix
from ..score.grounding import PRESENCE, Picture

BOX_THRESHOLD, TEXT_THRESHOLD = 0.35, 0.25  # of the published benchmark, with Grounding DINO Swin-T OGC


def loaded(kind: str, model: str, **options: Any) -> Any:
    import transformers

    try:
        return getattr(transformers, kind).from_pretrained(
            model, local_files_only=True, trust_remote_code=False, **options
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).split("\n")[0][:160]
        raise InputError(f"the model {model!r} cannot be loaded ({reason}); give a folder with a model.") from None


def _place() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


class GroundingDino:
    """Grounding DINO as a detector; boxes in the model's order.

    box, text: thresholds of its scores. overlap: IoU with a surer box from which a box is dropped; None keeps all."""

    def __init__(
        self,
        model: str,
        box: float = BOX_THRESHOLD,
        text: float = TEXT_THRESHOLD,
        overlap: float | None = None,
        device: str | None = None,
    ) -> None:
        self.box, self.text, self.overlap = box, text, overlap
        self.device = device or _place()
        self.processor = loaded("AutoProcessor", model)
        self.model = loaded("AutoModelForZeroShotObjectDetection", model, use_safetensors=True).to(self.device).eval()

    @torch.inference_mode()
    def __call__(self, picture: Picture, category: str, prompt: str) -> Sequence[Box]:
        text = category.lower().strip().rstrip(".") + "."
        image = Image.fromarray(picture)
        inputs = self.processor(images=image, text=text, return_tensors="pt").to(self.device)
        outputs = self.model(**inputs)
        # Read here: the processor's own reading has changed its arguments between releases.
        scores = outputs.logits[0].sigmoid()  # (queries, text tokens)
        sure = scores.max(-1).values
        # a box whose words all stay below the text threshold names nothing
        kept = (sure > self.box) & (scores[:, 1:-1] > self.text).any(-1)
        boxes = outputs.pred_boxes[0][kept].float().cpu()
        size = torch.tensor([picture.shape[1], picture.shape[0]])
        corners = torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1) * size.repeat(2)
        found = [Box(*corner) for corner in corners.tolist()]
        return found if self.overlap is None else _apart(found, sure[kept].tolist(), self.overlap)


def _apart(boxes: Sequence[Box], scores: Sequence[float], overlap: float) -> list[Box]:
    """The boxes, surest first, without those that overlap a surer one by more."""
    order = sorted(range(len(boxes)), key=lambda n: -scores[n])
    overlaps = iou_matrix(boxes, boxes)
    kept: list[int] = []
    for number in order:
        if not any(overlaps[number, other] > overlap for other in kept):
            kept.append(number)
    return [boxes[number] for number in kept]


class VisionJudge:
    """Any picture-and-text model of transformers as a judge."""

    def __init__(self, model: str, device: str | None = None) -> None:
        self.device = device or _place()
        self.processor = loaded("AutoProcessor", model)
        self.model = (
            loaded("AutoModelForImageTextToText", model, torch_dtype="auto", use_safetensors=True)
            .to(self.device)
            .eval()
        )

    def __call__(self, crop: Picture, category: str, description: str, attribute: str) -> str:
        if attribute == PRESENCE:
            question = f'Does this picture show this: "{category}"?'
        else:
            question = (
                f'The picture should show this {category}: "{description}". Does its {attribute} agree with that'
                f" description? If the description does not mention the {attribute}, the answer is yes."
            )
        return self.answer(crop, question)

    @torch.inference_mode()
    def answer(self, picture: Picture, question: str) -> str:
        """What the model says to a question about a picture, in few words."""
        content = [
            {"type": "image", "image": Image.fromarray(np.ascontiguousarray(picture))},
            {"type": "text", "text": f"{question} Answer with yes or no alone."},
        ]
        inputs = self.processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        ).to(self.device, self.model.dtype)  # pictures in the model's own type; whole numbers stay as they are
        said = self.model.generate(**inputs, max_new_tokens=8, do_sample=False)
        return self.processor.batch_decode(said[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0]


class BoxSegmenter:
    """SAM or SAM 2: of the masks that it offers for a box, the one that it thinks best of."""

    def __init__(self, model: str, device: str | None = None) -> None:
        self.device = device or _place()
        self.processor = loaded("AutoProcessor", model)
        self.model = loaded("AutoModelForMaskGeneration", model, use_safetensors=True).to(self.device).eval()

    @torch.inference_mode()
    def __call__(self, picture: Picture, box: Box) -> np.ndarray:
        corners = [[[box.x1, box.y1, box.x2, box.y2]]]
        inputs = self.processor(images=Image.fromarray(picture), input_boxes=corners, return_tensors="pt")
        asked = {k: v.to(self.device) for k, v in inputs.items() if k not in ("original_sizes", "reshaped_input_sizes")}
        outputs = self.model(**asked, multimask_output=True)
        sizes = [inputs[name] for name in ("original_sizes", "reshaped_input_sizes") if name in inputs]
        masks = self.processor.post_process_masks(outputs.pred_masks.float().cpu(), *sizes)[0]
        best = int(outputs.iou_scores.flatten().argmax())
        return masks.reshape(-1, *masks.shape[-2:])[best].numpy() > 0


class PatchFeatures:
    """DINOv2's patch features, averaged over a mask; a register or class token does not count.

    The picture goes through the model's own processor (which resizes the shorter side and cuts the middle out), the
    mask is resized to the patches as it is: so does the published code of LAMICBench++."""

    def __init__(self, model: str, device: str | None = None) -> None:
        self.device = device or _place()
        self.processor = loaded("AutoImageProcessor", model)
        self.model = loaded("AutoModel", model, use_safetensors=True).to(self.device).eval()

    @torch.inference_mode()
    def __call__(self, picture: Picture, mask: np.ndarray) -> np.ndarray:
        inputs = self.processor(images=Image.fromarray(np.ascontiguousarray(picture)), return_tensors="pt")
        tokens = self.model(**inputs.to(self.device)).last_hidden_state[0].float().cpu()
        height, width = inputs["pixel_values"].shape[-2:]
        patch = self.model.config.patch_size
        rows, columns = height // patch, width // patch
        patches = tokens[-rows * columns :]
        small = functional.interpolate(torch.from_numpy(mask[None, None].astype(np.float32)), (rows, columns))
        inside = small.flatten() > 0.5
        return (patches[inside] if bool(inside.any()) else patches).mean(0).double().numpy()


class TextLikeness:
    """CLIP, or PickScore, which is one: the cosine of picture and text times the model's own scale.

    bgr: red and blue are exchanged first, as some published code does."""

    def __init__(self, model: str, bgr: bool = False, device: str | None = None) -> None:
        self.bgr, self.device = bgr, device or _place()
        self.processor = loaded("AutoProcessor", model)
        self.model = loaded("AutoModel", model, use_safetensors=True).to(self.device).eval()

    @torch.inference_mode()
    def __call__(self, picture: Picture, texts: Sequence[str]) -> Sequence[float]:
        image = Image.fromarray(np.ascontiguousarray(picture[..., ::-1] if self.bgr else picture))
        inputs = self.processor(
            text=list(texts), images=image, padding=True, truncation=True, max_length=77, return_tensors="pt"
        )
        return self.model(**inputs.to(self.device)).logits_per_image[0].double().tolist()


class Aesthetic:
    """LAION's linear aesthetic head (sac+logos+ava1-l14-linearMSE) on the picture features of CLIP ViT-L/14."""

    def __init__(self, clip: str, head: str, device: str | None = None) -> None:
        self.device = device or _place()
        self.processor = loaded("AutoImageProcessor", clip)
        self.model = loaded("CLIPVisionModelWithProjection", clip, use_safetensors=True).to(self.device).eval()
        self.layers = _linear_layers(Path(head))

    @torch.inference_mode()
    def __call__(self, picture: Picture) -> float:
        inputs = self.processor(images=Image.fromarray(np.ascontiguousarray(picture)), return_tensors="pt")
        value = functional.normalize(self.model(**inputs.to(self.device)).image_embeds.float().cpu(), dim=1)
        for weight, bias in self.layers:
            value = functional.linear(value, weight, bias)
        return float(value)


def _linear_layers(path: Path) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The head's layers in their order; between them there is nothing but dropout."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            weights = load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
        numbers = sorted({int(name.split(".")[1]) for name in weights if name.startswith("layers.")})
        layers = [(weights[f"layers.{n}.weight"].float(), weights[f"layers.{n}.bias"].float()) for n in numbers]
        sizes = [tuple(weight.shape) for weight, _ in layers]
        if not layers or sizes[-1][0] != 1 or any(a[0] != b[1] for a, b in zip(sizes, sizes[1:], strict=False)):
            raise ValueError("no chain of linear layers down to one number")
    except Exception as error:  # noqa: BLE001 - the readers have errors of many kinds
        reason = str(error).split("\n")[0][:120]
        raise InputError(f"the aesthetic head {path.name} cannot be read ({reason}); download it again.") from None
    return layers


class InsightFaces:
    """InsightFace's faces (package insightface), whose models lie under ROOT/models/buffalo_l."""

    def __init__(self, root: str) -> None:
        folder = Path(root) / "models" / "buffalo_l"
        if not any(folder.glob("*.onnx")):  # else the package would download them
            raise InputError(f"{root} holds no models/buffalo_l with InsightFace's models; put them there.")
        try:
            from insightface.app import FaceAnalysis  # type: ignore[import-not-found]
        except ImportError:
            raise InputError("faces by InsightFace need its package; pip install insightface onnxruntime.") from None
        self.analysis = FaceAnalysis(name="buffalo_l", root=root, providers=["CPUExecutionProvider"])
        self.analysis.prepare(ctx_id=-1, det_size=(640, 640))

    def __call__(self, picture: Picture) -> Sequence[np.ndarray]:
        return [np.asarray(face.embedding) for face in self.analysis.get(np.ascontiguousarray(picture[..., ::-1]))]
