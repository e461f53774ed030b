"""`palate demo --telegram`: a Telegram on this machine, with channels that publish the sample and people who talk to the bot."""
