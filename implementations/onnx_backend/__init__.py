"""ONNX's recurrent nodes in ONNX Runtime: inference from canonical weights."""
