"""The arms of benchmarks/train.py: one way to train each, in a process of its own.

data.py            the rows that all arms read
setup.py           sizes: the model, the device, tokens of a micro-batch and of a step
arm.py             what an arm is, and ours: the loop's own Learner
padded_loop.py     A: the way of NeoBERT's code
unpadded_loop.py   B: the way of ModernBERT's code (FlexBERT)
hugging_face.py    C: transformers' ModernBERT without flash-attn
worker.py          an arm in its process, and the questions it answers
measure.py         which questions are asked when: losses first, then windows in turns
report.py          the tables
goals.py           what is asked of ours, and whether it was reached
resume_check.py    the same training in one go and in two
"""
