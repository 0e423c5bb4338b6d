"""Two digits of which only their sum is known: probabilities in and out, and a gradient."""

import torch

import byssus_scallop as scallopy

sum_2 = scallopy.Module(
    program="""
        type digit_1(a: i32), digit_2(b: i32)
        rel sum_2(a + b) = digit_1(a) and digit_2(b)
    """,
    provenance="exact",
    input_mappings={"digit_1": range(10), "digit_2": range(10)},
    output_mappings={"sum_2": range(19)},
)

torch.manual_seed(0)
logits = torch.zeros(2, 16, 10, requires_grad=True)  # what a network would say of 16 pairs
targets = torch.randint(19, (16,))
optimizer = torch.optim.Adam([logits], lr=0.1)
for step in range(100):
    probs = logits.softmax(2)
    result = sum_2(digit_1=probs[0], digit_2=probs[1])  # (16, 19)
    loss = -result[torch.arange(16), targets].log().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 20 == 0:
        print(f"step {step:3d}: loss {loss.item():.4f}")
print("the sums are", result.argmax(1).tolist())
print("the targets ", targets.tolist())
