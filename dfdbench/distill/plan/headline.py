"""The three numbers of a plan that decide, over all its stages: hours, memory, cost."""

from typing import Any

GIB = 2**30


def _hours(hours: float) -> str:
    return f"{hours:,.1f}" if hours >= 1 else f"{hours:.2g}"


def whole(plan: dict[str, Any], price: float | None = None) -> dict[str, Any]:
    """A plan and the first stage it names: hours, GPU hours, the larger memory, and the cost.

    Args:
        plan: of `make_plan`.
        price: of a GPU for an hour, in any currency; None leaves the cost open.

    Returns:
        hours and gpu_hours of all stages; memory_bytes of a GPU; fits, whether each stage does;
        cost in the price's currency.
    """
    stages = [plan, *([plan["first_stage"]] if plan["first_stage"] else [])]
    hours = sum(stage["hours"] for stage in stages)
    return {
        "hours": hours,
        "gpu_hours": hours * plan["gpus"],
        "memory_bytes": max(stage["memory_bytes"]["total"] for stage in stages),
        "fits": all(stage["fits"] for stage in stages),
        "price": price,
        "cost": None if price is None else price * hours * plan["gpus"],
    }


def headline(plan: dict[str, Any], price: float | None = None) -> str:
    """Hours, memory and cost for people; with `price` None how to get the cost."""
    all_of_it, gpu = whole(plan, price), plan["gpu"]
    first = plan["first_stage"]
    stages = (
        f", of them {_hours(first['hours'])} for its first stage {first['recipe']}" if first else ""
    )
    guessed = "an estimate" if plan["mfu_is_an_estimate"] else "as --mfu gives it"
    verdict = "fits" if all_of_it["fits"] else "does not fit; what to change is below"
    cost = "--price PRICE, of a GPU for an hour, gives it"
    if price is not None:
        cost = f"{all_of_it['cost']:,.2f}, at {price:g} an hour for each GPU"
    return "\n".join(
        (
            f"hours:  {_hours(all_of_it['hours'])} on {plan['gpus']} {gpu['name']} "
            f"({_hours(all_of_it['gpu_hours'])} GPU hours{stages}; "
            f"at {plan['mfu']:.0%} of the peak, {guessed})",
            f"memory: {all_of_it['memory_bytes'] / GIB:.1f} of {gpu['memory']:g} GiB a GPU "
            f"({verdict})",
            f"cost:   {cost}",
        )
    )
