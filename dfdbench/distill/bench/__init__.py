"""`dfdbench bench`: times and memory of training and sampling with random weights, no download."""
