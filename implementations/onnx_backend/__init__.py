"""ONNX's recurrent nodes in ONNX Runtime: inference with canonical weights."""
