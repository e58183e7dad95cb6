"""Writing a module as an ONNX file."""

import torch


def export(module, path, shape=(1, 3, 32, 32), open_axes=(0,), opset=17, **options):
    with torch.no_grad():
        torch.onnx.export(
            module,
            (torch.rand(shape),),
            path,
            dynamo=False,
            opset_version=opset,
            input_names=["images"],
            dynamic_axes={"images": {axis: f"axis{axis}" for axis in open_axes}},
            **options,
        )
    return path
