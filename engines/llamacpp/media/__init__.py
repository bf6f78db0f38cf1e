"""Pictures and sounds in llama.cpp, through libmtmd.

A `Projector` beside the model turns them into embeddings, which stand in the prompt where tokens would:
`layout` says how many, `encoder` computes them off the engine thread, `spans` finds them in a sequence, and
`positions` counts where they are, which in some models is not how many they are.
"""
