// One bidder takes the best entry of a menu, as src/truthful/mechanisms/menu.py defines it.

function rule({ allocations, prices }) {
  return (bids) => {
    let taken = 0, most = -Infinity;
    prices.forEach((price, entry) => {
      const utility = allocations[entry].reduce((sum, chance, item) => sum + chance * bids[item], -price);
      if (utility > most) [taken, most] = [entry, utility];
    });
    return { allocation: allocations[taken], payment: [prices[taken]] };
  };
}
