"""Runs for other tools: nnU-Net, MONAI bundles, DICOM, ONNX, shards."""
