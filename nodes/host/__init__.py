"""The methods in ComfyUI: the only package that touches the host's patch points.

Works unchanged on ComfyUI 0.3.64 and later, through documented hooks only:

* a layout's plan travels inside the conditioning (``model_conds``), its pictures as ``reference_latents``;
* an OUTER_SAMPLE wrapper refuses, before sampling, what cannot compose;
* an APPLY_MODEL wrapper says where in the run the step stands;
* a DIFFUSION_MODEL wrapper makes one :class:`~.call.Call` for one forward pass, which carries out what the methods on
  the model want. Patches that other nodes have put there are called from inside ours, whatever the node order.

A call that does not come through all of its hooks raises: a silent no-op would be the worst bug.
"""

from .conditioning import attach, plan_of
from .families import Family, family_of
from .install import Probe, install, methods_of, settings_of, watched
from .models import build_flux, build_qwen, build_sd3
from .sizes import expect_sides, shift_doubt

__all__ = [
    "Family",
    "Probe",
    "attach",
    "build_flux",
    "build_qwen",
    "build_sd3",
    "expect_sides",
    "family_of",
    "install",
    "methods_of",
    "plan_of",
    "settings_of",
    "shift_doubt",
    "watched",
]
