"""Networks: building, freezing, dropout and pretrained weights."""
