from __future__ import annotations

import pytest
import torch
from network_fakes import SPECS, features
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sonde.base.errors import UserError
from sonde.contracts.specs import InputSpec, OutputSpec
from sonde.networks.recurrent import CELLS, Recurrent, RecurrentConfig

POSITION = OutputSpec(per=("position",), width=13)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("both", [False, True])
def test_it_is_torchs_network_on_packed_sequences(cell, both):
    torch.manual_seed(0)
    config = RecurrentConfig(cell=cell, width=6, layers=2, embedding=5, bidirectional=both, dropout=0.0)
    backbone = Recurrent(config, SPECS["tokens"], POSITION).eval()
    theirs = CELLS[cell](5, 6, num_layers=2, batch_first=True, bidirectional=both)
    for layer in range(2):
        for cells, suffix in ((backbone.forwards, ""), (backbone.backwards, "_reverse")):
            for name, weight in cells[layer].named_parameters() if len(cells) else ():
                theirs.get_parameter(name.replace("_l0", f"_l{layer}{suffix}")).data.copy_(weight.data)
    tensors = features(SPECS["tokens"])
    packed = pack_padded_sequence(backbone.entry(tensors), tensors["length"], batch_first=True, enforce_sorted=False)
    expected, _ = pad_packed_sequence(theirs(packed)[0], batch_first=True)
    ours = backbone(tensors)
    for index, length in enumerate(tensors["length"].tolist()):
        torch.testing.assert_close(ours[index, :length], expected[index, :length])


@pytest.mark.parametrize("both", [False, True])
def test_last_is_the_final_state_of_each_direction(both):
    torch.manual_seed(0)
    config = RecurrentConfig(cell="gru", width=6, embedding=5, bidirectional=both, pool="last", dropout=0.0)
    backbone = Recurrent(config, SPECS["tokens"], OutputSpec(per=("example",), width=2)).eval()
    theirs = nn.GRU(5, 6, batch_first=True, bidirectional=both)
    for cells, suffix in ((backbone.forwards, ""), (backbone.backwards, "_reverse")):
        for cell in cells:
            for name, weight in cell.named_parameters():
                theirs.get_parameter(name + suffix).data.copy_(weight.data)
    tensors = features(SPECS["tokens"])
    packed = pack_padded_sequence(backbone.entry(tensors), tensors["length"], batch_first=True, enforce_sorted=False)
    _, final = theirs(packed)
    torch.testing.assert_close(backbone(tensors), torch.cat(list(final), dim=1))


def test_causal_answers_are_never_read_backwards():
    backbone = Recurrent(
        RecurrentConfig(bidirectional=True), SPECS["tokens"], OutputSpec(per=("position",), width=13, causal=True)
    )
    assert len(backbone.backwards) == 0
    assert backbone.width == 128
    looking_ahead = Recurrent(RecurrentConfig(width=4), SPECS["tokens"], POSITION)
    with pytest.raises(NotImplementedError, match="reads backwards"):
        looking_ahead.extend(features(SPECS["tokens"]), None)


def test_weights_are_tied_only_where_widths_agree():
    ask = OutputSpec(per=("position",), width=13, causal=True)
    backbone = Recurrent(RecurrentConfig(width=8, embedding=8, tie=True), SPECS["tokens"], ask)
    assert backbone.embedding_weight is backbone.entry.layer.weight
    assert Recurrent(RecurrentConfig(width=8, embedding=8), SPECS["tokens"], ask).embedding_weight is None
    with pytest.raises(UserError) as caught:
        Recurrent(RecurrentConfig(width=8, embedding=4, tie=True), SPECS["tokens"], ask)
    assert str(caught.value) == (
        "network 'recurrent' cannot tie its embedding (width 4) to its answers, which come from features of width 8. "
        "hint: embedding = 8, or tie = false"
    )


@pytest.mark.parametrize(("vocabulary", "std"), [(256, 1.0), (20_000, 0.05)])
def test_rare_words_begin_silent_and_letters_loud(vocabulary, std):
    backbone = Recurrent(RecurrentConfig(), InputSpec(layout="tokens", vocabulary=vocabulary, size=(9,)), POSITION)
    assert backbone.entry.layer.weight.std().item() == pytest.approx(std, rel=0.05)


def test_an_lstm_begins_by_remembering():
    backbone = Recurrent(RecurrentConfig(width=4, embedding=3), SPECS["tokens"], POSITION)
    for cell in (*backbone.forwards, *backbone.backwards):
        assert (cell.bias_ih_l0 + cell.bias_hh_l0).tolist() == [0.0] * 4 + [1.0] * 4 + [0.0] * 8
        gate = cell.weight_hh_l0[4:8]
        torch.testing.assert_close(gate @ gate.T, torch.eye(4))
