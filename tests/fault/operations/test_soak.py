"""Half a minute of the soak, two kills in it: the books balance, nothing grows. The long one is run by
hand: soak.py."""

from soak import soak


def test_a_short_soak_balances_its_books():
    result = soak(minutes=0.6, kill_every=12, clients=4)
    print(result)
    assert result["kills"] >= 2 and result["requests"] > 50
    assert result["problems"] == []
