"""A detector and a judge for the Layout Grounding Score through transformers: Grounding DINO, and any model that reads
a picture with a question. Models are folders or names in the user's cache; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from ..errors import InputError
from ..layout.box import Box
from ..score.grounding import Picture

BOX_THRESHOLD, TEXT_THRESHOLD = 0.35, 0.25  # of the published benchmark, with Grounding DINO Swin-T OGC


def _loaded(kind: str, model: str, **options: Any) -> Any:
    import transformers

    try:
        return getattr(transformers, kind).from_pretrained(
            model, local_files_only=True, trust_remote_code=False, **options
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).split("\n")[0][:160]
        raise InputError(f"the model {model!r} cannot be loaded ({reason}); give a folder with a model.") from None


class GroundingDino:
    """Grounding DINO as a detector."""

    def __init__(self, model: str, device: str | None = None) -> None:
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.processor = _loaded("AutoProcessor", model)
        self.model = _loaded("AutoModelForZeroShotObjectDetection", model, use_safetensors=True).to(self.device).eval()

    @torch.inference_mode()
    def __call__(self, picture: Picture, category: str, prompt: str) -> Sequence[Box]:
        text = category.lower().strip().rstrip(".") + "."
        image = Image.fromarray(picture)
        inputs = self.processor(images=image, text=text, return_tensors="pt").to(self.device)
        outputs = self.model(**inputs)
        # Read here: the processor's own reading has changed its arguments between releases.
        scores = outputs.logits[0].sigmoid()  # (queries, text tokens)
        kept = scores.max(-1).values > BOX_THRESHOLD
        words = scores[kept, 1:-1]  # a box whose words all stay below the text threshold names nothing
        boxes = outputs.pred_boxes[0][kept][(words > TEXT_THRESHOLD).any(-1)].float().cpu()
        size = torch.tensor([picture.shape[1], picture.shape[0]])
        corners = torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1) * size.repeat(2)
        return [Box(*corner) for corner in corners.tolist()]


class VisionJudge:
    """Any picture-and-text model of transformers as a judge."""

    def __init__(self, model: str, device: str | None = None) -> None:
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.processor = _loaded("AutoProcessor", model)
        self.model = (
            _loaded("AutoModelForImageTextToText", model, torch_dtype="auto", use_safetensors=True)
            .to(self.device)
            .eval()
        )

    @torch.inference_mode()
    def __call__(self, crop: Picture, category: str, description: str, attribute: str) -> str:
        question = (
            f'The picture should show this {category}: "{description}". Does its {attribute} agree with that'
            f" description? If the description does not mention the {attribute}, the answer is yes. Answer with yes or"
            " no alone."
        )
        content = [{"type": "image", "image": Image.fromarray(crop)}, {"type": "text", "text": question}]
        inputs = self.processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        ).to(self.device, self.model.dtype)  # pictures in the model's own type; whole numbers stay as they are
        said = self.model.generate(**inputs, max_new_tokens=8, do_sample=False)
        return self.processor.batch_decode(said[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0]
