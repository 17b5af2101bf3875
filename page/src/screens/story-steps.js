// The article in eight steps: what each says, which screen it shows in which state, and the Python that does the same.

const LOAD = model => model.name === "shakespeare"
  ? "import throughtime as tt\nfrom throughtime.play import EXAMPLE\n\nmodel = tt.load(EXAMPLE)  # the network of this page"
  : `import throughtime as tt\n\nmodel = tt.load("runs/${model.name}")  # where the run folder is`;
const LABORATORY = (problem, cells, more) => `from contextlib import nullcontext

from throughtime.laboratory.experiment import Asked, Experiment
from throughtime.laboratory.tables import written

asked = Asked("${problem}", cells=${cells}, ${more})
values = Experiment(asked).run(lambda what: nullcontext(lambda share, words: None), say=print)
print(written(values))`;
const HAMLET = "To be, or not to be, that is the question";

export const steps = [
  {
    key: "order",
    title: "Why order matters",
    says: [
      "“No” and “on” are made of the same two letters. So are “dog bites man” and “man bites dog” of the same three words. Whoever only counts what is there cannot tell them apart; "
        + "what they mean lies in the order.",
      "Read “I saw a saw”: the first saw is a verb, the second a noun, and nothing but what stood before says which. A network for sequences needs a memory.",
      "Here is a network that reads a character at a time. It has read “no”. Look at what it expects next, then let it read “on”.",
    ],
    screen: "tape",
    preset: { text: "no" },
    others: { "let it read “no”": { text: "no" }, "let it read “on”": { text: "on" } },
    python: model => `${LOAD(model)}
for text in ("no", "on"):
    session = model.session()
    session.feed(text)
    print(text, session.next(3))`,
  },
  {
    key: "loop",
    title: "The loop",
    says: [
      "The memory is a row of numbers, the hidden state h. At each step the network takes one input x and the state that it had, and makes the next state of both:",
      "=hₜ = tanh(Wₕₕ hₜ₋₁ + Wₓₕ xₜ + b)",
      "Wₕₕ, Wₓₕ and b are the same at every step. That is all that makes a network recurrent: what comes out goes in again. It reads texts of any length with the same few numbers.",
      "Type, a letter at a time. Each adds one column: one turn of the loop.",
    ],
    screen: "tape",
    preset: { text: "to be or not", at: "3" },
    python: () => `import torch
import throughtime as tt


class Plain(torch.nn.Module):
    """h' = tanh(W_hh h + W_xh x + b), written as it stands."""

    def __init__(self, inputs, units):
        super().__init__()
        self.W_xh = torch.nn.Linear(inputs, units)
        self.W_hh = torch.nn.Linear(units, units, bias=False)

    def forward(self, x, h):
        return torch.tanh(self.W_hh(h) + self.W_xh(x))


x = torch.randn(20, 1, 5)  # 20 steps, one sequence, 5 inputs
states, last, _ = tt.scan(Plain(5, 8), x, torch.zeros(1, 8))
print(states.shape)`,
  },
  {
    key: "unrolled",
    title: "Unrolled",
    says: [
      "Lay the turns of the loop side by side, and it becomes a long chain: a column a step, the same weights in each, and the state as the only thing that passes from one to the next.",
      "Whatever the network still knows at the end has come through every column on the way. So one can go back to any of them: the state there is all that it knew.",
      "Go to and fro with the slider or the arrow keys. Rows are units, those that move alike stand together. Some hold on for a word, some for a line, some change with every letter.",
    ],
    screen: "tape",
    preset: { text: "ROMEO:\nBut soft, what light through yonder window breaks?\n", at: "20" },
    python: model => `${LOAD(model)}
session = model.session()
states = []
for character in "But soft, what light":
    session.feed(character)
    states.append(session.state[0])  # of the first layer: all that it knows
session.rewind(9)  # and back
print(len(states), session.next(3))`,
  },
  {
    key: "back",
    title: "Back through time",
    says: [
      "How does it learn? It says what it expects, sees what comes, and asks of every weight: which way would you have had to be for this to be less of a surprise? That is the gradient.",
      "In the unrolled network the question runs backwards along the chain, from the output to the state before it, to the one before that. This is backpropagation through time: the chain rule, once a step.",
      "Pick an output and see how much the state after each step matters to it. Where the colour has faded, the network could not learn that something there was the reason.",
    ],
    screen: "reach",
    preset: { text: HAMLET },
    python: model => `${LOAD(model)}
from throughtime.inspect.report import look_into

values = look_into(model, "${HAMLET}")
for layer, found in values["gradients"].items():
    print(layer, found["verdict"], [round(norm, 4) for norm in found["norms"][:12]])`,
  },
  {
    key: "vanishing",
    title: "Vanishing",
    says: [
      "Going back, the gradient is multiplied at each step by the same kind of thing: Wₕₕ and the slope of tanh, which is at most 1. Multiply by 0.8 sixty times, and a millionth is left.",
      "So the plain network can read far, but it cannot learn from far. The problem here marks one symbol and asks for it 60 steps later: press Train, and watch the curve of the gradient. It falls through the floor "
        + "long before it comes to where the symbol stood, and the answers stay guesses.",
      "Take the lag down to 5, and it learns. It is not the task that is hard, but the distance.",
    ],
    screen: "train",
    preset: { problem: "recall", cell: "rnn", lag: "60", radius: "0.8", rate: "0.003" },
    python: () => LABORATORY("recall", '("rnn",)', "lags=(5, 20), steps=300, seed=1"),
  },
  {
    key: "exploding",
    title: "Exploding",
    says: [
      "The other way round: where each step back multiplies by more than 1, the gradient grows without bound. One update by it, and the weights are thrown to where no number can be worked out any more: NaN.",
      "Press Train and see it happen. The page says at which step it broke and what the norms were before.",
      "A gradient that is too long still points the right way. Clipping makes it shorter and keeps its direction: train the same again, clipped at 1.",
    ],
    screen: "train",
    preset: { problem: "adding", cell: "relu", lag: "25", radius: "1.5", method: "sgd", clip: "none", seed: "4" },
    python: () => `import torch
import throughtime as tt
from throughtime.scanning.observe import observing

torch.manual_seed(4)
cell = tt.cells.Elman(2, 32, nonlinearity="relu")
with torch.no_grad():  # a spectral radius of 1.5
    cell.weight_hh *= 1.5 / torch.linalg.eigvals(cell.weight_hh).abs().max()
with observing(gradients=True) as scans:
    outputs, _, _ = tt.scan(cell, torch.rand(25, 16, 2))
outputs[-1].sum().backward()
for back, gradient in enumerate(scans[0].gradients[0].flip(0)):
    print(back, "steps back:", round(gradient.norm().item(), 2))
print("norm of all gradients:", torch.nn.utils.clip_grad_norm_(cell.parameters(), 1.0).item(), "then 1")`,
  },
  {
    key: "gates",
    title: "Gates",
    says: [
      "What if the state were carried on as it is, and only changed where there is a reason to? The LSTM has a cell c beside h, and gates between 0 and 1, worked out from the input and the state, that say how much is kept, taken in and shown:",
      "=cₜ = f ⊙ cₜ₋₁ + i ⊙ g,  hₜ = o ⊙ tanh(cₜ)",
      "Where the forget gate f stands at 1, the gradient goes back through c unchanged, however many steps. The GRU does the same with two gates and one state.",
      "This is the problem that the plain network failed at, at a lag of 20: train, and see the gradient reach further back until the answer is there. Then try 60.",
    ],
    screen: "train",
    preset: { problem: "recall", cell: "lstm", lag: "20" },
    python: () => LABORATORY("recall", '("lstm", "gru")', "lags=(20,), steps=300, seed=1"),
  },
  {
    key: "after",
    title: "What came after",
    says: [
      "A state of a few hundred numbers must forget. Change one letter of the past and see for how long it matters: after some steps the two futures are one again.",
      "Attention (2014) let the network look back at all that it had read, and the Transformer (2017) kept nothing else: it forgets nothing that it can see, but what it sees must be kept whole, and each step looks at all of it.",
      "Since then the loop has come back, with states that change linearly and so can be trained all at once: their step costs the same after a million inputs as after one. That is what makes a memory worth having "
        + "where something runs on and on: a stream.",
    ],
    screen: "fork",
    preset: { text: "the king is dead, long live the king\n", at: "4" },
    python: model => `${LOAD(model)}
session = model.session()
session.feed("the king is dead, long live the king")
other = session.branch()
other.edit(4, input="m")  # the ming is dead
difference = session.diff(other)
print("they part at", difference.parts, "by", difference.states[0])`,
  },
];
