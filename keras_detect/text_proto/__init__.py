"""The protobuf text format without protoc or descriptors; errors name the file, the line and the field."""

from keras_detect.text_proto.node import Node, PipelineConfigError
from keras_detect.text_proto.parser import parse, read

__all__ = ["Node", "PipelineConfigError", "parse", "read"]
